"""A forward once more from the middle: what comes before a layer that changes stays as it is.

Every torch function of a forward is numbered (`lockstep.Listener`). Their results are kept, and in another forward
those before a number are not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.inputs import call_model
from onexn_plugins.repair.lockstep import Listener


@dataclass
class _Recorder(Listener):
    """Keeps what every function gave, and which older results were changed in place.

    Attributes:
        results: by number.
        origins: place in memory -> number of the first result that lies there.
        changes: (number of the result, number of the function that changed it).
    """

    results: list[Any] = field(default_factory=list)
    origins: dict[int, int] = field(default_factory=dict)
    changes: list[tuple[int, int]] = field(default_factory=list)

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        number, read = self.count, _tensors([*arguments, options or {}])
        before = [each._version for each in read]
        result = super().__torch_function__(function, types, arguments, options)
        if self.count > number:
            self.results.append(result)
            for each, version in zip(read, before, strict=True):
                if each._version != version:
                    self.changes.append((self.origins.get(_place(each), -1), number))
            for each in _tensors(result):
                self.origins.setdefault(_place(each), number)
        return result


@dataclass
class _Player(Listener):
    """Gives the results before `start`, and computes from there on."""

    results: list[Any] = field(default_factory=list)
    start: int = 0

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function is torch._C._set_grad_enabled or self.count >= self.start:
            return super().__torch_function__(function, types, arguments, options)
        self.count += 1
        return self.results[self.count - 1]


@dataclass
class Recording:
    """A forward of one batch.

    Attributes:
        output: of the model.
    """

    model: nn.Module
    batch: Any
    output: Any
    context: Callable[[], Any]
    recorder: _Recorder

    @classmethod
    def of(cls, model: nn.Module, batch: Any, context: Callable[[], Any] = torch.no_grad) -> Recording:
        """Run the model, which is in evaluation mode, on the batch."""
        recorder = _Recorder({})
        with torch.no_grad(), context(), recorder:
            output = call_model(model, batch)
        return cls(model, batch, output, context, recorder)

    def again(self, number: int) -> Any:
        """The output with the weights of now, where none of those that the first `number` functions read has changed.

        Where an older result was changed in place later on, everything is computed again.
        """
        if any(origin < number <= changed for origin, changed in self.recorder.changes):
            number = 0
        with torch.no_grad(), self.context(), _Player({}, results=self.recorder.results, start=number):
            return call_model(self.model, self.batch)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for each in value for tensor in _tensors(each)]
    return [value] if isinstance(value, Tensor) else []
