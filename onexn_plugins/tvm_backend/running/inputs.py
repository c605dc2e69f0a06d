"""What a caller gives a network: checked, and lent to it.

All this runs between two networks, when the caches hold nothing of it: every line takes ten times as long as one that
was run just before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tvm
import tvm_ffi

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.tvm_backend.lowering.placement import aligned
from onexn_plugins.tvm_backend.output.huge_pages import allocate


@dataclass(frozen=True)
class Tensor:
    """An input or output of a network."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @cached_property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(self.dtype)

    @cached_property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.numpy_dtype.itemsize

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the saved description holds them."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}


class Inputs:
    """The inputs of one network, in order."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tuple(tensors)

    def checked(self, given: tuple[Any, ...]) -> list[np.ndarray]:
        """One contiguous array per input, from arrays in order, a list of them or a dict by name.

        Raises:
            OneXNError: one is missing, unknown or not what the network takes.
        """
        if len(given) == len(self.tensors) == 1 and _fits(given[0], self.tensors[0]):
            return list(given)
        if len(given) == 1 and isinstance(given[0], Mapping):
            arrays = _by_name(given[0], self.tensors)
        else:
            arrays = list(given[0]) if len(given) == 1 and isinstance(given[0], (list, tuple)) else list(given)
        if len(arrays) != len(self.tensors):
            raise OneXNError("inputs", f"{len(arrays)} were given, the network takes {len(self.tensors)}: "
                             f"{', '.join(tensor.name for tensor in self.tensors)}", "Pass one array per input")
        return [_checked(array, tensor) for array, tensor in zip(arrays, self.tensors, strict=True)]

    def lent(self, arrays: Sequence[np.ndarray]) -> list[tvm.runtime.Tensor]:
        """TVM's tensors on the arrays' own memory, which the network only reads, or on copies: of read-only ones,
        which numpy does not lend, and of those not aligned as their elements. The copies last until the next call.
        """
        return [tvm_ffi.from_dlpack(array) if array.flags.writeable and array.flags.aligned
                else self._copied(position, array) for position, array in enumerate(arrays)]

    def _copied(self, position: int, array: np.ndarray) -> tvm.runtime.Tensor:
        copy, tensor = self._copies[position]
        np.copyto(copy, array)
        return tensor

    @cached_property
    def _copies(self) -> list[tuple[np.ndarray, tvm.runtime.Tensor]]:
        """A place for a copy of each input. Large ones cost no memory until they are needed."""
        room = allocate(sum(aligned(tensor.nbytes) for tensor in self.tensors))
        copies, start = [], 0
        for tensor in self.tensors:
            array = room[start:start + tensor.nbytes].view(tensor.numpy_dtype).reshape(tensor.shape)
            copies.append((array, tvm.runtime.from_dlpack(array)))
            start += aligned(tensor.nbytes)
        return copies


def _fits(array: Any, tensor: Tensor) -> bool:
    """Whether it can be taken as it is."""
    return type(array) is np.ndarray and array.dtype == tensor.numpy_dtype and array.shape == tensor.shape and (
        array.flags.c_contiguous)


def _by_name(arrays: Mapping[str, Any], inputs: Sequence[Tensor]) -> list[Any]:
    names = [tensor.name for tensor in inputs]
    if set(arrays) != set(names):
        wrong = sorted(set(arrays) ^ set(names), key=str)[0]
        state = "is missing" if wrong in names else "is no input of the network"
        raise OneXNError(f"input {wrong!r}", state, f"Pass exactly these: {', '.join(names)}")
    return [arrays[name] for name in names]


def _checked(array: Any, tensor: Tensor) -> np.ndarray:
    """The array, contiguous, if it is what the network takes. Nothing is cast silently."""
    try:
        array = np.asarray(array)
    except Exception as error:
        raise OneXNError(f"input {tensor.name!r}", f"is no array: {first_line(error)}",
                         "Pass a numpy array, or a torch tensor on the CPU without gradient") from error
    if array.dtype != tensor.numpy_dtype:
        raise OneXNError(f"input {tensor.name!r}", f"is {array.dtype}, the network takes {tensor.dtype}",
                         f"Convert it, for example with .astype(np.{tensor.dtype})")
    if array.shape != tensor.shape:
        raise OneXNError(f"input {tensor.name!r}", f"has shape {list(array.shape)}, the network takes "
                         f"{list(tensor.shape)}", "Reshape it, or export the model with inputs of that shape")
    return np.asarray(array, order="C")  # ascontiguousarray would give a scalar an axis
