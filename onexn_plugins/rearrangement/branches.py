"""Branches that run in training alone, such as the auxiliary heads of googlenet and inception_v3.

They read channels that move, so a rearrangement that looked at eval mode alone would change what is fine-tuned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import call_model
from onexn_plugins.layers import weighted_layers


class _Used(TorchFunctionMode):
    """Remembers every tensor that a torch function was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ids.update(id(value) for value in (*args, *(kwargs or {}).values()) if isinstance(value, Tensor))
        return func(*args, **(kwargs or {}))


def call_branches(model: nn.Module, example_inputs: Any) -> tuple[list[Any], str | None]:
    """The outputs of a model in eval mode; where that leaves layers idle, also those with their branches open.

    Norms and dropout stay in eval mode.

    Returns:
        The outputs, and why the branches could not be run (a forward may want targets in training); else None.

    Raises:
        OneXNError: the forward fails in eval mode.
    """
    with _Used() as used:
        outputs = call_model(model, example_inputs)
    idle = [name for name, layer in weighted_layers(model).items() if id(layer.weight) not in used.ids]
    if not idle:
        return [outputs], None
    with _open(model, idle):
        try:
            return [outputs, call_model(model, example_inputs)], None
        except OneXNError as error:
            layers = ", ".join(idle[:3]) + (f" and {len(idle) - 3} more" if len(idle) > 3 else "")
            return [outputs], f"{layers} may read them in training, for which example inputs are unfit: {error.reason}"


@contextmanager
def _open(model: nn.Module, layers: Iterable[str]) -> Iterator[None]:
    """While open, the modules that contain these layers are in training mode."""
    containers = {model.get_submodule(name.rpartition(".")[0]) for name in _prefixes(layers)}
    closed = [module for module in containers if not module.training]
    for module in closed:
        module.training = True
    try:
        yield
    finally:
        for module in closed:
            module.training = False


def _prefixes(names: Iterable[str]) -> set[str]:
    """Every name and every module name it starts with: {"a.b.c"} -> {"a", "a.b", "a.b.c"}."""
    return {".".join(name.split(".")[:depth]) for name in names for depth in range(1, len(name.split(".")) + 1)}
