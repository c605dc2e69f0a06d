"""Example inputs (a tensor, a tuple or a dict) and running a model on them without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError, first_line


def check_inputs(example_inputs: Any) -> None:
    """Raise OneXNError unless example_inputs is a tensor or a non-empty list, tuple or dict of values."""
    if isinstance(example_inputs, Tensor) or (isinstance(example_inputs, (list, tuple, dict)) and example_inputs):
        return
    raise OneXNError("example_inputs", f"must be a tensor, a tuple or a dict, got {type(example_inputs).__name__}",
                     "Pass what the model's forward takes, for example torch.randn(1, 3, 224, 224)")


def call_model(model: nn.Module, example_inputs: Any) -> Any:
    """model(example_inputs) without gradients.

    Raises:
        OneXNError: the model's forward fails on them.
    """
    check_inputs(example_inputs)
    try:
        with torch.no_grad():
            if isinstance(example_inputs, dict):
                return model(**example_inputs)
            if isinstance(example_inputs, (list, tuple)):
                return model(*example_inputs)
            return model(example_inputs)
    except Exception as error:
        reason = first_line(error)
        raise OneXNError("example_inputs", f"the model's forward fails on them: {reason}",
                         "Pass inputs of the shape, dtype and device that the model takes") from error


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`value` with every tensor inside lists, tuples and dicts replaced by function(tensor)."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(function, item) for item in value)
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor inside `value`: containers are entered, and objects that carry tensors as attributes."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return tensors_in(vars(value)) if hasattr(value, "__dict__") else []


@contextmanager
def keep_state(model: nn.Module) -> Iterator[None]:
    """Give every module its training mode, and every buffer its value, back at the end."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
