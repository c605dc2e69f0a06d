"""What a caller gives a network, checked, and laid where its kernels can load vectors from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tvm

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.huge_pages import allocate
from onexn_plugins.tvm_backend.onnx_model import first_line
from onexn_plugins.tvm_backend.placement import ALIGNMENT, aligned

# Up to here a copy takes less time than a look at where the array lies.
SMALL = 16 << 10


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
        if len(given) == 1 and isinstance(given[0], Mapping):
            arrays = _by_name(given[0], self.tensors)
        else:
            arrays = list(given[0]) if len(given) == 1 and isinstance(given[0], (list, tuple)) else list(given)
        if len(arrays) != len(self.tensors):
            raise OneXNError("inputs", f"{len(arrays)} were given, the network takes {len(self.tensors)}: "
                             f"{', '.join(tensor.name for tensor in self.tensors)}", "Pass one array per input")
        return [_checked(array, tensor) for array, tensor in zip(arrays, self.tensors, strict=True)]

    def laid(self, arrays: Sequence[np.ndarray]) -> list[tvm.runtime.Tensor]:
        """TVM's tensors on the arrays' own memory, which the network only reads, or on copies where kernels could not
        load vectors from there. The copies last until the next call.
        """
        return [_shared(array, copy) for array, copy in zip(arrays, self._copies, strict=True)]

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
    return np.ascontiguousarray(array)


def _shared(array: np.ndarray, copy: tuple[np.ndarray, tvm.runtime.Tensor]) -> tvm.runtime.Tensor:
    if array.nbytes > SMALL:
        address, read_only = array.__array_interface__["data"]
        if address % ALIGNMENT == 0 and not read_only:
            return tvm.runtime.from_dlpack(array)
    np.copyto(copy[0], array)
    return copy[1]
