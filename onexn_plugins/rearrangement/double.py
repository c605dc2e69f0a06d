"""Runs code in float64 that asks for a smaller float in so many words (`x.float()`, `dtype=torch.float32`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

SMALLER_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
CASTS = ("float", "half", "bfloat16")


class _Widen(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in CASTS and len(args) == 1:
            return args[0].double()
        wide_args = tuple(_wide(arg) for arg in args)
        return func(*wide_args, **{name: _wide(value) for name, value in (kwargs or {}).items()})


@contextmanager
def in_double() -> Iterator[None]:
    """New tensors are float64, and casts to a smaller float are casts to float64."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widen():
            yield
    finally:
        torch.set_default_dtype(default)


def _wide(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in SMALLER_FLOATS else value
