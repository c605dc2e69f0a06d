"""What stands behind each layer: the norm that takes up a shift, the sum that it ends, the activation that clips it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.inputs import call_model, keep_state
from onexn_plugins.rearrangement.tracing.tracer import METADATA
from onexn_plugins.repair.lockstep import Call, Listener

_SUMS = {"add", "__add__", "__iadd__", "__radd__", "add_"}


@dataclass(frozen=True)
class Surroundings:
    """One layer's.

    Attributes:
        number: of its first call among all torch functions of a forward.
        bytes: of what it reads of one image.
        size: of its feature map without batch and channels; of a Linear layer, its rows per image.
        norm: the batch norm in evaluation mode that alone reads it; None where there is none.
        skip: number of the call whose result is added to the layer's output (behind its norm) and was there before
            the layer: with a target of dense sum − this, the layer corrects what the other summand lost.
        bounds: (low, high) that an activation such as ReLU clips the output to, behind its norm, before anything else
            reads it; None where there is none.
        end: number of the call that gives what the layer passes on, behind the norm, sum or activation.
    """

    number: int
    bytes: int
    size: tuple[int, ...]
    norm: nn.modules.batchnorm._BatchNorm | None = None
    skip: int | None = None
    bounds: tuple[float, float] | None = None
    end: int = 0


def surroundings(model: nn.Module, example_inputs: Any, weights: Mapping[str, Tensor]) -> dict[str, Surroundings]:
    """By layer, in the order in which they are computed; layers that are never computed are left out."""
    norms = {id(module.running_mean): module for module in model.modules()
             if isinstance(module, nn.modules.batchnorm._BatchNorm) and isinstance(module.running_mean, Tensor)}
    names = {id(weight): name for name, weight in weights.items()}
    probe = _Probe(names, norms=norms)
    with keep_state(model), torch.no_grad(), probe:
        call_model(model.eval(), example_inputs)
    return {layer: probe.found(layer) for layer in probe.calls}


@dataclass
class _Probe(Listener):
    """Follows every layer's output through norms to a sum.

    Attributes:
        calls: layer -> its call.
        values: id -> (the tensor, number of its call); every result, kept alive so that ids stay unique.
        source: id of a tensor -> the layer it is the output of, as it is or behind its norm.
        clipped: layer -> (what an activation clips it to, id of what the activation reads, unless it overwrites that).
        readers: id of a tensor -> how many functions read it.
        end: layer -> number of the last call that its output went through alone.
    """

    norms: Mapping[int, Any] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: dict[int, tuple[Tensor, int]] = field(default_factory=dict)
    source: dict[int, str] = field(default_factory=dict)
    output: dict[str, int] = field(default_factory=dict)
    norm: dict[str, Any] = field(default_factory=dict)
    skip: dict[str, int] = field(default_factory=dict)
    clipped: dict[str, tuple[tuple[float, float], int | None]] = field(default_factory=dict)
    readers: dict[int, int] = field(default_factory=dict)
    end: dict[str, int] = field(default_factory=dict)

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        number = self.count
        result = super().__torch_function__(function, types, arguments, options)
        name = getattr(function, "__name__", "")
        self._clip(name, arguments, options or {}, result, number)
        if name != "__get__" and name not in METADATA:
            for value in _tensors(arguments):
                self.readers[id(value)] = self.readers.get(id(value), 0) + 1
        if isinstance(result, Tensor) and id(result) not in self.values:
            self.values[id(result)] = (result, number)
        if name == "batch_norm":
            self._norm(arguments, result, number)
        elif name in _SUMS and len(arguments) > 1 and not (options or {}).get("alpha"):
            self._sum(arguments, number)
        elif name == "dropout":
            self._follow(arguments[0], result)
        if arguments and result is arguments[0] and name != "dropout":  # changed in place
            self.source.pop(id(result), None)
        return result

    def visit(self, call: Call, compute: Callable[[], Tensor]) -> Tensor:
        result = compute()
        if call.layer not in self.calls:
            rows = result.shape[1:-1] if call.function is nn.functional.linear else result.shape[2:]
            self.calls[call.layer], self.sizes[call.layer] = call, tuple(rows)
            self.source[id(result)] = call.layer
            self.end[call.layer] = call.number
            self.output[call.layer] = id(result)
            self.values[id(result)] = (result, call.number)
        return result

    def found(self, layer: str) -> Surroundings:
        alone = self.readers.get(self.output[layer], 0) <= 1
        inputs, (bounds, read) = self.calls[layer].inputs, self.clipped.get(layer, (None, None))
        if (layer in self.norm and not alone) or (read is not None and self.readers.get(read, 0) > 1):
            bounds = None
        return Surroundings(self.calls[layer].number, inputs.numel() * inputs.element_size() // len(inputs),
                            self.sizes[layer], self.norm.get(layer) if alone else None,
                            self.skip.get(layer) if alone else None, bounds, self.end[layer])

    def _norm(self, arguments: Sequence[Any], result: Tensor, number: int) -> None:
        layer = self.source.get(id(arguments[0]))
        norm = next((self.norms[id(each)] for each in _tensors(arguments) if id(each) in self.norms), None)
        if layer is not None and norm is not None and layer not in self.norm:
            self.norm[layer], self.end[layer] = norm, number
            self.source[id(result)] = layer

    def _clip(self, name: str, arguments: Sequence[Any], options: Mapping[str, Any], result: Any,
              number: int) -> None:
        value = arguments[0] if arguments else None
        layer = self.source.get(id(value)) if isinstance(value, Tensor) else None
        limits = clip_limits(name, arguments[1:], options) if layer is not None else None
        if layer is not None and limits is not None and not self.readers.get(id(value)):
            self.clipped[layer] = limits, None if result is value else id(value)
            self.end[layer] = number

    def _sum(self, arguments: Sequence[Any], number: int) -> None:
        one, other = arguments[:2]
        for ended, summand in ((one, other), (other, one)):
            layer = self.source.get(id(ended)) if isinstance(ended, Tensor) else None
            if layer is None or not isinstance(summand, Tensor) or summand.shape != ended.shape:
                continue
            value = self.values.get(id(summand))
            if value is not None and value[1] < self.calls[layer].number and layer not in self.skip:
                self.skip[layer], self.end[layer] = value[1], number

    def _follow(self, value: Any, result: Tensor) -> None:
        if isinstance(value, Tensor) and id(value) in self.source:
            self.source[id(result)] = self.source[id(value)]


def clip_limits(name: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> tuple[float, float] | None:
    """(low, high) of the function of this name, called with these arguments behind the first; None if it clips not."""
    name = name.rstrip("_")
    if name in ("relu", "relu6"):
        return 0.0, 6.0 if name == "relu6" else math.inf
    if name == "hardtanh":
        positional = dict(zip(("min_val", "max_val"), arguments, strict=False))
        given = {"min_val": -1.0, "max_val": 1.0, **positional, **options}
        limits = given["min_val"], given["max_val"]
    elif name in ("clamp", "clip"):
        given = {"min": None, "max": None, **dict(zip(("min", "max"), arguments, strict=False)), **options}
        limits = -math.inf if given["min"] is None else given["min"], math.inf if given["max"] is None else given["max"]
    else:
        return None
    return limits if all(isinstance(each, (int, float)) for each in limits) else None


def _tensors(arguments: Sequence[Any]) -> list[Tensor]:
    return [each for each in arguments if isinstance(each, Tensor)]
