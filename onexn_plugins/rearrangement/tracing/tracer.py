"""Listens to every torch function a running model calls and lets that function's rule follow the channels.

A function without a rule freezes the channels that enter it: the tracer may miss a freedom, but does not invent
one. What escapes it altogether (scripted submodules, pointers) is caught by the proof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from onexn_plugins.rearrangement.spaces import named_tensors
from onexn_plugins.rearrangement.tracing.facts import Facts, compact, frozen

Rule = Callable[["Tracer", "Call"], None]
RULES: dict[str, Rule] = {}

# These tell a tensor's form, never its values.
METADATA = frozenset(
    [
        "size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "element_size", "is_contiguous",
        "is_floating_point", "is_complex", "is_signed", "is_same_size", "is_inference", "is_pinned", "__len__",
        "__hash__", "get_device", "type", "data_ptr", "untyped_storage", "has_names", "is_set_to", "_is_view",
        "__repr__", "__format__", "sym_size", "backward", "register_hook",
    ]
)

# A number leaves the tensors, and a branch of the model may depend on it: the other branch is never seen.
DECIDING = frozenset(["__bool__", "item", "__int__", "__float__", "__index__", "is_nonzero", "equal", "allclose"])


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of the torch functions of these names; a name has one rule."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise ValueError(f"two rules for {name}")
            RULES[name] = function
        return function

    return register


@dataclass
class Call:
    """One call of a torch function by the model, with its result."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, passed by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def tensors(self) -> list[Tensor]:
        return [tensor for value in (*self.args, *self.kwargs.values()) for tensor in _tensors(value)]

    def results(self) -> list[Tensor]:
        return _tensors(self.result)


class Tracer(TorchFunctionMode):
    """Labels for every activation; what they say about parameters is collected in `facts`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.facts = Facts()
        self.output_labels: dict[str, Tensor] = {}  # one vector per weight: a layer used twice has the same channels
        self._labels = WeakTensorKeyDictionary()
        self._origins = WeakTensorKeyDictionary()
        self._names: dict[int, str] = {}
        self._tensors = named_tensors(model)
        for name, tensor in self._tensors.items():
            self._names.setdefault(id(tensor), name)

    def name_of(self, tensor: Tensor | None) -> str | None:
        """The qualified name of a parameter or buffer of the model; None for anything else."""
        return None if tensor is None else self._names.get(id(tensor))

    def origin(self, tensor: Tensor) -> tuple[str, Tensor] | None:
        """For a parameter, a buffer or a rearranged view of one: its name and the flat index of every element."""
        name = self.name_of(tensor)
        if name is not None:
            return name, torch.arange(tensor.numel()).reshape(tensor.shape)
        return self._origins.get(tensor)

    def set_origin(self, tensor: Tensor, name: str, index: Tensor) -> None:
        """`tensor` holds the elements `index` (its shape) of the flattened parameter or buffer `name`."""
        self._origins[tensor] = (name, index)

    def origin_name(self, tensor: Tensor) -> str | None:
        """The parameter or buffer that `tensor` is, or is a view of."""
        return self.name_of(tensor) or self._origins.get(tensor, (None,))[0]

    def registered(self, name: str) -> Tensor:
        """The parameter or buffer of this name."""
        return self._tensors[name]

    def is_labelled(self, tensor: Tensor) -> bool:
        return tensor in self._labels

    def labels(self, tensor: Tensor) -> Tensor:
        """Labels of an activation; a constant's are frozen."""
        return self._labels[tensor] if tensor in self._labels else frozen(tensor.shape)

    def label(self, tensor: Tensor, labels: Tensor) -> None:
        """Remember the labels of an activation, int32 of its shape."""
        if labels.shape != tensor.shape:
            raise ValueError(f"labels of shape {tuple(labels.shape)} for a tensor of shape {tuple(tensor.shape)}")
        self._labels[tensor] = compact(labels)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._follow(Call(_name(func), func, tuple(args), kwargs or {}, result))
        return result

    def _follow(self, call: Call) -> None:
        follow = RULES.get(call.name)
        results = call.results()
        if not results and call.name != "__setitem__":
            self._leave(call)
            return
        if not any(self.is_labelled(tensor) or self.origin_name(tensor) for tensor in call.tensors()):
            return
        if follow is None:
            self.give_up(call, f"they pass {call.name}, which has no rule")
            return
        try:
            follow(self, call)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            # A call form the rule does not know. Freezing is always sound, and the reason names the function.
            self.give_up(call, f"they pass {call.name} in a form that cannot be followed ({type(error).__name__})")

    def give_up(self, call: Call, reason: str) -> None:
        """Freeze every channel that enters the call, and every parameter it reads."""
        for tensor in call.tensors():
            if self.is_labelled(tensor):
                self.facts.freeze(self.labels(tensor), reason)
            name = self.origin_name(tensor)
            if name:
                self.facts.fix(name, reason.replace("they pass", "it passes"))
        for tensor in call.results():
            self.label(tensor, frozen(tensor.shape))

    def _leave(self, call: Call) -> None:
        """No tensor comes out: the values may have left for Python (item, numpy, a branch)."""
        if call.name in METADATA or call.name.startswith(("__get__", "__set__")):
            return
        for tensor in call.tensors():
            if self.is_labelled(tensor):
                self.facts.freeze(self.labels(tensor), f"their values leave the tensors by {call.name}")
                if call.name in DECIDING:
                    self.facts.unseen = self.facts.unseen or f"{call.name} lets the model's path depend on values"


def _name(function: Any) -> str:
    """The function's name; for a property such as Tensor.T the property's name as well."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":
        return f"__get__{getattr(getattr(function, '__self__', None), '__name__', '')}"
    return name


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    return []
