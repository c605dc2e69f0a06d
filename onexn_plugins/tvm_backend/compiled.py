"""A compiled network: run it, time it, look into it, save it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import artefact
from onexn_plugins.tvm_backend.aot import StaticNetwork
from onexn_plugins.tvm_backend.logs import TVM_CHATTER, without_lines
from onexn_plugins.tvm_backend.onnx_model import first_line
from onexn_plugins.tvm_backend.plan import Layer
from onexn_plugins.tvm_backend.profile import Profile, Step, describe, time_calls
from onexn_plugins.tvm_backend.roofline import measure
from onexn_plugins.tvm_backend.targets import Target, why_not_here
from onexn_plugins.tvm_backend.threadpool import use_threads

# Bytes that the start of every tensor is a multiple of, as TVM's own allocator does it.
ALIGNMENT = 64
MAX_THREADS = 1024


@dataclass(frozen=True)
class Tensor:
    """An input or output of a network."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @cached_property
    def numpy_dtype(self) -> np.dtype:
        return np.dtype(self.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the saved description holds them."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run, over `repeat` of them.

    Attributes:
        median, p10, p90: quantiles.
        repeat: runs that were timed.
    """

    median: float
    p10: float
    p90: float
    repeat: int


class Compiled:
    """A network compiled for one processor.

    Attributes:
        inputs, outputs: names, shapes and element types, in order.
        layers: what became of every Conv and Linear layer (see Layer), in order.
        target: the processor it was compiled for.
        threads: how many threads it runs on; the number is part of its code.
    """

    def __init__(self, library: Any, target: Target, inputs: Sequence[Tensor], outputs: Sequence[Tensor],
                 layers: Sequence[Layer], threads: int = 1, steps: Sequence[Step] = ()) -> None:
        self.target, self.threads, self._steps = target, threads, tuple(steps)
        self.inputs, self.outputs, self.layers = tuple(inputs), tuple(outputs), tuple(layers)
        self._library = library

    def run(self, *inputs: Any) -> np.ndarray | list[np.ndarray]:
        """The network's output, or the list of its outputs where it has several.

        Args:
            inputs: one array per input in order, or a single dict of arrays by input name. Torch tensors on the CPU
                are taken too.

        Raises:
            OneXNError: an input is missing or unknown, or has another shape or element type; or this machine cannot
                run the target's code.
        """
        main, tensors = self._main, self._tensors(inputs)
        use_threads(self.threads)
        try:
            result = main(*tensors)
        except Exception as error:
            raise OneXNError("network", f"does not run: {first_line(error)}", artefact.REBUILD) from error
        return self._collect(result)

    def benchmark(self, repeat: int = 50, warmup: int = 5, inputs: Sequence[Any] | None = None) -> Latency:
        """Time single runs, on these inputs or on random ones (seed 0); copying in and out is left out.

        Raises:
            OneXNError: repeat is below 1, warmup negative, or an input does not fit.
        """
        if repeat < 1 or warmup < 0:
            raise OneXNError("benchmark", f"cannot time {repeat} runs after {warmup}",
                             "Use repeat >= 1 and warmup >= 0")
        tensors = self._tensors(tuple(inputs) if inputs is not None else tuple(map(_random, self.inputs)))
        use_threads(self.threads)
        for _ in range(warmup):
            self._main(*tensors)
        times = []
        for _ in range(repeat):
            start = time.perf_counter()
            self._main(*tensors)
            times.append((time.perf_counter() - start) * 1e3)
        p10, median, p90 = (float(value) for value in np.percentile(times, (10, 50, 90)))
        return Latency(median, p10, p90, repeat)

    def profile(self, repeat: int = 20, inputs: Sequence[Any] | None = None) -> Profile:
        """Time every kernel inside the running network, and compare each with what the machine could do at best.

        Raises:
            OneXNError: repeat is below 1, or an input does not fit.
        """
        if repeat < 1:
            raise OneXNError("profile", f"cannot time {repeat} runs", "Use repeat >= 1")
        tensors = self._tensors(tuple(inputs) if inputs is not None else tuple(map(_random, self.inputs)))
        use_threads(self.threads)
        self._main(*tensors)
        calls = time_calls(self._machine, lambda: self._main(*tensors), repeat)
        return describe(calls, self._steps, self.layers, measure(self.target))

    def save(self, path: str | Path) -> Path:
        """Write the artefact, one folder with library (or program) and description; `load` or a board takes it.

        Raises:
            OneXNError: nothing here links for the target, or the disk refuses; nothing is left behind then.
        """
        if not isinstance(self._library, (relax.VMExecutable, StaticNetwork)):
            raise OneXNError(str(path), "this network was loaded from a saved one", "Copy that folder instead")
        with without_lines(*TVM_CHATTER):
            return artefact.write(path, self._library, self.target, self.describe())

    def describe(self) -> dict[str, Any]:
        """Inputs, outputs, layers, steps and threads as plain values."""
        return {
            "inputs": [tensor.to_dict() for tensor in self.inputs],
            "outputs": [tensor.to_dict() for tensor in self.outputs],
            "layers": [layer.to_dict() for layer in self.layers],
            "steps": [step.to_dict() for step in self._steps],
            "threads": self.threads,
        }

    @cached_property
    def _main(self) -> Any:
        return self._machine["main"]

    @cached_property
    def _machine(self) -> Any:
        reason = why_not_here(self.target)
        if reason:
            raise OneXNError(f"target {self.target.name!r}", reason,
                             "Save the network and run it on a board, or compile with target='host'")
        return relax.VirtualMachine(self._library, tvm.cpu())

    def _tensors(self, given: tuple[Any, ...]) -> list[Any]:
        if len(given) == 1 and isinstance(given[0], Mapping):
            arrays = _by_name(given[0], self.inputs)
        else:
            arrays = list(given[0]) if len(given) == 1 and isinstance(given[0], (list, tuple)) else list(given)
        if len(arrays) != len(self.inputs):
            raise OneXNError("inputs", f"{len(arrays)} were given, the network takes {len(self.inputs)}: "
                             f"{', '.join(tensor.name for tensor in self.inputs)}", "Pass one array per input")
        return [_shared(_checked(array, tensor)) for array, tensor in zip(arrays, self.inputs, strict=True)]

    def _collect(self, result: Any) -> np.ndarray | list[np.ndarray]:
        """The outputs as arrays, on the memory that the network wrote: each run allocates outputs of its own."""
        return np.from_dlpack(result) if len(self.outputs) == 1 else [np.from_dlpack(item) for item in result]


def load(path: str | Path) -> Compiled:
    """A network that `Compiled.save` wrote. Loading runs its code: load only what you trust.

    Raises:
        OneXNError: it is missing, damaged, of another version, or not for this machine.
    """
    saved = artefact.read(path)
    try:
        inputs = [_tensor(entry) for entry in saved.metadata["inputs"]]
        outputs = [_tensor(entry) for entry in saved.metadata["outputs"]]
        layers = [Layer(**{**entry, "shape": tuple(entry["shape"])}) for entry in saved.metadata["layers"]]
        threads = checked_threads(saved.metadata["threads"])
        steps = [Step.from_dict(entry, len(layers)) for entry in saved.metadata["steps"]]
        with without_lines(*TVM_CHATTER):
            library = tvm.runtime.load_module(str(saved.library))
    except (OneXNError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise OneXNError(str(path), "is no network that this version can load", artefact.REBUILD) from error
    return Compiled(library, saved.target, inputs, outputs, layers, threads, steps)


def checked_threads(threads: Any) -> int:
    """The number of threads.

    Raises:
        OneXNError: it is no integer from 1 to MAX_THREADS.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise OneXNError("threads", f"must be a positive integer up to {MAX_THREADS}, got {threads!r}", "Use threads=1")
    return threads


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    tensor = Tensor(entry["name"], tuple(entry["shape"]), entry["dtype"])
    if str(tensor.numpy_dtype) != tensor.dtype:
        raise ValueError(f"{tensor.dtype!r} is no element type")
    return tensor


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


def _shared(array: np.ndarray) -> Any:
    """A TVM tensor on the array's memory, which the network only reads; on a copy where its kernels could not load
    vectors from there.

    `tvm.runtime.tensor` does the same in five times the time, which is felt in small networks.
    """
    address, read_only = array.__array_interface__["data"]
    if read_only or address % ALIGNMENT:
        memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
        start = -memory.__array_interface__["data"][0] % ALIGNMENT
        moved = memory[start:start + array.nbytes].view(array.dtype).reshape(array.shape)
        np.copyto(moved, array)
        array = moved
    return tvm.runtime.from_dlpack(array)


def _random(tensor: Tensor) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal(tensor.shape)
    return values.astype(tensor.dtype) if np.issubdtype(tensor.dtype, np.floating) else np.zeros(
        tensor.shape, tensor.dtype)
