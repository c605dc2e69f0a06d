"""Listens to every torch function a running model calls and lets that function's rule follow the channels.

A function without a rule freezes the channels that enter it: the tracer may miss a freedom, but does not invent
one. It also listens to the operators beneath. Those that no torch function called come from code it cannot read, such
as scripted submodules: the channels that enter them stay. Where a value leaves torch or decides a shape, the model may
take another path on the next input, and nothing may move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
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
        "__hash__", "get_device", "type", "has_names", "is_set_to", "_is_view", "is_conj", "is_neg", "is_coalesced",
        "is_shared", "sym_size", "backward", "register_hook", "retain_grad", "result_type", "can_cast", "dim_order",
        "__dlpack_device__",
    ]
)
# Operators whose result's size, or whose plain number, depends on values.
DECIDING = frozenset([torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape])
INDEXING = "aten::index"  # among these, though only an index of bools decides a size; the rule looks at that


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
        self.output_labels: dict[tuple[str, int], Tensor] = {}  # (weight, dim): the same at every use
        self._labels = WeakTensorKeyDictionary()
        self._origins = WeakTensorKeyDictionary()
        self._names: dict[int, str] = {}
        self._call: Call | None = None  # the torch function that is running
        self._operators = _Operators(self)
        self.module = ""  # the one that is running
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

    def __enter__(self) -> Tracer:
        self._operators.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._operators.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _name(func) == "__iter__":  # of which only the iterator would be seen
            return iter(self.__torch_function__(Tensor.unbind, types, (args[0], 0)))
        self._call = call = Call(_name(func), func, tuple(args), kwargs or {}, None)
        try:
            call.result = func(*args, **(kwargs or {}))
        finally:
            self._call = None
        with torch._C._DisableTorchDispatch():  # the rules' own operators are no part of the model
            self._follow(call)
        return call.result

    def operator(self, operator: Any, tensors: list[Tensor], results: list[Tensor]) -> None:
        """An operator ran, called by a torch function or by code that is no Python."""
        name = operator.name()
        deciding = isinstance(operator, HigherOrderOperator) or DECIDING.intersection(operator.tags)
        if deciding and self._reads_activations(tensors) and not (self._call and name.startswith(INDEXING)):
            self.decide(self._call.name if self._call else name.partition("::")[2].partition(".")[0] or name)
        if self._call is None and any(self.is_labelled(tensor) or self.origin_name(tensor) for tensor in tensors):
            self.lose(tensors, results, f"their order is visible to code that cannot be read, in {self._where()}")

    def _reads_activations(self, tensors: list[Tensor]) -> bool:
        """Do the tensors of an operator, or what the torch function around it computed them from, carry channels?"""
        entered = self._call.tensors() if self._call else []
        constants = [tensor for tensor in entered if not self.is_labelled(tensor)]
        if all(any(tensor is each for each in constants) for tensor in tensors):
            return False
        return any(self.is_labelled(tensor) for tensor in (*tensors, *entered))

    def decide(self, function: str) -> None:
        """From here on, what the model does may depend on values."""
        self.facts.unseen = self.facts.unseen or f"{function} in {self._where()} lets the model's path depend on values"

    def lose(self, tensors: list[Tensor], results: list[Tensor], reason: str, *, pinned: bool = True) -> None:
        """Freeze every channel that enters, and every parameter that is read; the results never move."""
        for tensor in tensors:
            if self.is_labelled(tensor):
                if pinned:
                    self.facts.expose(self.labels(tensor), reason)
                else:
                    self.facts.freeze(self.labels(tensor), reason, pinned=False)
            name = self.origin_name(tensor)
            if name:
                self.facts.fix(name, reason.replace("they pass", "it passes"), pinned=pinned)
        for tensor in results:
            self.label(tensor, frozen(tensor.shape))

    def _where(self) -> str:
        return f"module {self.module}" if self.module else "the model's forward"

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
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            # A call form the rule does not know. Freezing is always sound, and the reason names the function.
            self.give_up(call, f"they pass {call.name} in a form that cannot be followed ({type(error).__name__})")

    def give_up(self, call: Call, reason: str) -> None:
        """Freeze what enters a call that cannot be followed. Whole numbers that come out may be channel numbers."""
        results = call.results()
        self.lose(call.tensors(), results, reason, pinned=not all(each.is_floating_point() for each in results))

    def _leave(self, call: Call) -> None:
        """No tensor comes out: the values may have left for Python (item, numpy, a branch)."""
        if call.name in METADATA or call.name.startswith(("__get__", "__set__")):
            return
        tensors = call.tensors()
        self.lose(tensors, [], f"their values leave the tensors by {call.name}, in {self._where()}")
        if any(self.is_labelled(tensor) for tensor in tensors):
            self.decide(call.name)


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
    if isinstance(value, slice):
        return _tensors((value.start, value.stop, value.step))
    return []


class _Operators(TorchDispatchMode):
    """Tells the tracer of every operator that runs."""

    supports_higher_order_operators = True  # such as torch.cond

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # the operator itself is no call of the model's
            result = func(*args, **(kwargs or {}))
        self._tracer.operator(func, _tensors((args, kwargs or {})), _tensors(result))
        return result
