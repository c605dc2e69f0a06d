"""A compiled network: run it, time it, look into it, save it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.tvm_backend.logs import TVM_CHATTER, without_lines
from onexn_plugins.tvm_backend.output import artefact
from onexn_plugins.tvm_backend.output.forms import Built
from onexn_plugins.tvm_backend.planning.layer import Layer
from onexn_plugins.tvm_backend.processors import Target, why_not_here
from onexn_plugins.tvm_backend.running.inputs import Inputs, Tensor
from onexn_plugins.tvm_backend.running.profile import Profile, Step, profile_of
from onexn_plugins.tvm_backend.running.roofline import measure
from onexn_plugins.tvm_backend.running.threadpool import use_threads

MAX_THREADS = 1024


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
        layers: what became of every convolution and linear layer (see Layer), in order.
        target: the processor it was compiled for.
        threads: how many threads it runs on; the number is part of its code.
        verification: {"compared": True, "with": "onnxruntime ...", "difference": largest difference as a share of the
            largest value} where it was compared when it was compiled, else {"compared": False, "reason": ...}.
        strict: infinities and NaN in inputs go wherever ONNX's operators take them; see compile_model.
    """

    def __init__(self, network: Built, target: Target, inputs: Sequence[Tensor],
                 outputs: Sequence[Tensor], layers: Sequence[Layer], threads: int = 1,
                 steps: Sequence[Step] = (), verification: Mapping[str, Any] | None = None,
                 strict: bool = False) -> None:
        self.target, self.threads, self.strict, self._steps = target, threads, strict, tuple(steps)
        self.verification = dict(verification or {"compared": False, "reason": "was not asked for"})
        self.inputs, self.outputs, self.layers = tuple(inputs), tuple(outputs), tuple(layers)
        self._network, self._given = network, Inputs(inputs)
        # There is one place for each activation.
        self._one_at_a_time = threading.Lock()

    def run(self, *inputs: Any) -> np.ndarray | list[np.ndarray]:
        """The network's output, or the list of its outputs where it has several.

        Args:
            inputs: one array per input in order, or a single dict of arrays by input name. Torch tensors on the CPU
                are taken too.

        Raises:
            OneXNError: an input is missing or unknown, or has another shape or element type; or this machine cannot
                run the target's code.
        """
        network, arrays = self._run, self._given.checked(inputs)
        use_threads(self.threads)
        try:
            with self._one_at_a_time:
                result = network(*self._given.lent(arrays))
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
        times = []
        with self._ready(inputs) as run:
            for _ in range(warmup):
                run()
            for _ in range(repeat):
                start = time.perf_counter()
                run()
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
        with self._ready(inputs) as run:
            run()
            time_calls = self._network.time_calls
            assert time_calls is not None, "what runs here is timed here"
            calls = time_calls(run, repeat)
        return profile_of(calls, self._steps, self.layers, measure(self.target))

    def save(self, path: str | Path) -> Path:
        """Write the artefact, one folder with library (or program) and description; `load` or a board takes it.

        Raises:
            OneXNError: nothing here links for the target, or the disk refuses; nothing is left behind then.
        """
        if not self._network.writable:
            raise OneXNError(str(path), "this network was loaded from a saved one", "Copy that folder instead")
        with without_lines(*TVM_CHATTER):
            return artefact.write(path, self._network, self.target, self.describe())

    def describe(self) -> dict[str, Any]:
        """Inputs, outputs, layers, steps, threads, verification and strictness as plain values."""
        return {
            "inputs": [tensor.to_dict() for tensor in self.inputs],
            "outputs": [tensor.to_dict() for tensor in self.outputs],
            "layers": [layer.to_dict() for layer in self.layers],
            "steps": [step.to_dict() for step in self._steps],
            "threads": self.threads,
            "verification": self.verification,
            "strict": self.strict,
        }

    @cached_property
    def _run(self) -> Callable[..., Any]:
        """The network, if this machine can run it."""
        reason = why_not_here(self.target)
        run = None if reason else self._network.run  # which loads the code
        if run is None:
            raise OneXNError(f"target {self.target.name!r}", reason or "its networks are programs of their own",
                             "Save the network and run it on a board, or compile with target='host'")
        return run

    @contextmanager
    def _ready(self, inputs: Sequence[Any] | None) -> Iterator[Callable[[], Any]]:
        """One run on these inputs or on random ones, to be called again and again."""
        network = self._run
        arrays = self._given.checked(tuple(inputs) if inputs is not None else tuple(map(_random, self.inputs)))
        use_threads(self.threads)
        with self._one_at_a_time:
            yield partial(network, *self._given.lent(arrays))

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
        layers = [Layer.from_dict(entry) for entry in saved.metadata["layers"]]
        threads = checked_threads(saved.metadata["threads"])
        steps = [Step.from_dict(entry, len(layers)) for entry in saved.metadata["steps"]]
        with without_lines(*TVM_CHATTER):
            network = saved.network()
    except (OneXNError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise OneXNError(str(path), "is no network that this version can load", artefact.REBUILD) from error
    # Artefacts of earlier versions say nothing of it.
    verification = saved.metadata.get("verification")
    return Compiled(network, saved.target, inputs, outputs, layers, threads, steps,
                    verification if isinstance(verification, dict) else None, saved.metadata.get("strict") is True)


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


def _random(tensor: Tensor) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal(tensor.shape)
    return values.astype(tensor.dtype) if np.issubdtype(tensor.dtype, np.floating) else np.zeros(
        tensor.shape, tensor.dtype)
