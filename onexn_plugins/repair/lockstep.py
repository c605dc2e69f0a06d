"""Runs a model on many batches side by side, layer by layer, whatever Python its forward is made of.

Every batch has a thread of its own, of which only one runs at a time. A thread stops wherever a layer that was asked
for is about to be computed; once all of them stand there, the caller looks at what arrives, may change the layer, and
lets them go on. So a network is repaired in one pass, each layer on what the repaired layers before it really give,
and no graph of it is needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import call_model

# Functions that apply a weight, as a TorchFunctionMode sees them.
APPLYING = (torch.conv1d, torch.conv2d, nn.functional.linear, torch.conv_transpose1d, torch.conv_transpose2d)


@dataclass
class Call:
    """A layer about to be computed.

    Attributes:
        layer: its name.
        function: one of `APPLYING`.
        inputs: what it reads: [n, in, *size], or [..., in] for Linear.
        options: stride, padding, dilation, groups as far as they were given.
        number: of this call among all torch functions that the forward calls.
    """

    layer: str
    function: Callable[..., Tensor]
    inputs: Tensor
    options: dict[str, Any]
    number: int


@dataclass
class Listener(TorchFunctionMode):
    """Hears every torch function of one forward; subclasses say what to do at a layer.

    Attributes:
        names: id of a weight -> name of its layer.
        wanted: numbers of calls whose results are kept, in `kept`.
    """

    names: Mapping[int, str]
    wanted: frozenset[int] = frozenset()
    kept: dict[int, Tensor] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function is torch._C._set_grad_enabled:  # so that a call has the same number with and without gradients
            return function(*arguments, **(options or {}))
        number, self.count = self.count, self.count + 1
        if function in APPLYING:
            result = self.apply(function, number, arguments, options or {})
        else:
            result = function(*arguments, **(options or {}))
        if number in self.wanted and isinstance(result, Tensor):
            self.kept[number] = result
        return result

    def apply(self, function: Callable[..., Tensor], number: int, arguments: Sequence[Any],
              options: Mapping[str, Any]) -> Tensor:
        order = _ORDER[function]
        named = {**dict(zip(order, arguments, strict=False)), **options}
        layer = self.names.get(id(named["weight"]))
        if layer is None:
            return function(*arguments, **options)
        rest = {key: value for key, value in named.items() if key not in ("input", "weight", "bias")}
        return self.visit(Call(layer, function, named["input"], rest, number),
                          lambda: function(*arguments, **options))

    def visit(self, call: Call, compute: Callable[[], Tensor]) -> Tensor:
        """What the layer gives."""
        return compute()


_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_ORDER = {torch.conv1d: _CONV, torch.conv2d: _CONV, nn.functional.linear: ("input", "weight", "bias"),
          torch.conv_transpose1d: _TRANSPOSED, torch.conv_transpose2d: _TRANSPOSED}


class _Stopped(BaseException):
    """Raised inside a forward that nobody waits for any more."""


class Run(threading.Thread):
    """One forward that stops at layers.

    Attributes:
        call: the layer it stands at; None where it has ended.
        output: of the model, once it has ended.
        error: what its forward raised.
    """

    def __init__(self, model: nn.Module, batch: Any, names: Mapping[int, str], wanted: frozenset[int],
                 context: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.call: Call | None = None
        self._compute: Callable[[], Tensor] | None = None
        self._result: Tensor | None = None
        self.output: Any = None
        self.error: BaseException | None = None
        self.listener = _Stopping(names, wanted)
        self.listener.run = self
        self._model, self._batch, self._context = model, batch, context
        self._go, self._stands, self._ending, self._seen = threading.Event(), threading.Event(), False, set[str]()

    def run(self) -> None:
        self._go.wait()
        try:
            if not self._ending:
                with torch.no_grad(), self._context(), self.listener:
                    self.output = call_model(self._model, self._batch)
        except _Stopped:
            pass
        except BaseException as error:
            self.error = error
        self.call = self._compute = None
        self._model = self._batch = None  # type: ignore[assignment]
        self._stands.set()

    def result(self) -> Tensor:
        """What the layer it stands at gives, with the weights it has now; not computed again by `advance`."""
        assert self._compute is not None
        if self._result is None:
            with torch.no_grad(), self._context():
                self._result = self._compute()
        return self._result

    def advance(self) -> None:
        """Let it run to the next layer, or to its end."""
        if not self.is_alive() and self.ident is None:
            self.start()
        self._stands.clear()
        self._go.set()
        self._stands.wait()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """End it where it stands."""
        if self.is_alive():
            self._ending = True
            self._go.set()
            self.join()

    def stand(self, call: Call, compute: Callable[[], Tensor]) -> Tensor:
        """Called by its own thread: wait at a layer, then compute it. A second call of a layer does not wait."""
        if call.layer in self._seen:
            return compute()
        self._seen.add(call.layer)
        self.call, self._compute = call, compute
        self._go.clear()
        if self._ending:  # while it was on its way here; nobody will call it again
            raise _Stopped
        self._stands.set()
        self._go.wait()
        if self._ending:
            raise _Stopped
        result, self.call, self._compute, self._result = self._result, None, None, None
        return compute() if result is None else result


@dataclass
class _Stopping(Listener):
    run: Run = field(init=False)

    def visit(self, call: Call, compute: Callable[[], Tensor]) -> Tensor:
        return self.run.stand(call, compute)


@contextmanager
def runs(model: nn.Module, batches: Sequence[Any], weights: Mapping[str, Tensor], wanted: frozenset[int] = frozenset(),
         context: Callable[[], Any] = torch.no_grad) -> Iterator[list[Run]]:
    """A forward of every batch that stops at the layers with these weights, standing at the first; ended on leaving."""
    names = {id(weight): name for name, weight in weights.items()}
    started = [Run(model, batch, names, wanted, context) for batch in batches]
    try:
        for run in started:
            run.advance()
        yield started
    finally:
        for run in started:
            run.stop()


def layer_of(group: Sequence[Run]) -> str | None:
    """The layer that all of them stand at; None at the end.

    Raises:
        OneXNError: they stand at different ones.
    """
    layers = {run.call.layer if run.call else None for run in group}
    if len(layers) > 1:
        name = str(next(layer for layer in layers if layer))
        raise OneXNError(name, "is computed for some images and not for others",
                         "Repair takes models that compute the same layers for every image")
    return layers.pop()
