"""Builds and times kernels in a process of its own, which a bad kernel may take down; `bench` starts and watches it.

A kernel is timed as a network runs it: its input and output are in the cache, as the layer before has just written
them, but its weights are not, as all other layers' weights have passed since. So a timed call runs the kernel several
times in a row on copies of its weights which together are larger than a second-level cache.
"""

from __future__ import annotations

import math
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from onexn_plugins.tvm_backend.kernels.choose import kernel_of
from onexn_plugins.tvm_backend.kernels.problem import Choice, Conv, Kernel, Linear
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.processors import Target
from onexn_plugins.tvm_backend.running.rpc import Board
from onexn_plugins.tvm_backend.running.rpc_session import Progress, Refused, broken, connect, core_of
from onexn_plugins.tvm_backend.running.threadpool import use_threads

# Copies of the weights take about this many bytes: twice the largest second-level cache of the targets.
COLD_BYTES = 4 << 20
# But a timed call takes no more copies, and does no more work, than this.
MOST_COPIES, MOST_MACS = 16, 20_000_000


@dataclass(frozen=True)
class Setup:
    """For whom and where kernels are built and run; without a board, here."""

    target: Target
    board: Board | None
    threads: int


@dataclass(frozen=True)
class Order:
    """Time a candidate against the default, `pairs` times each; `number` tells requests apart."""

    number: int
    request: Request
    default: Choice
    candidate: Choice
    pairs: int


@dataclass(frozen=True)
class Ready:
    """The process waits for its first order; `core` is what the board reports."""

    core: str | None


@dataclass(frozen=True)
class Times:
    """Microseconds of one run, of each pair in turn."""

    default: tuple[float, ...]
    candidate: tuple[float, ...]


@dataclass(frozen=True)
class Unusable:
    """The candidate cannot be built or run."""

    reason: str


def serve(pipe: Connection, setup: Setup) -> None:
    """Answer orders until there is no one left to give them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gives the orders
    try:
        workplace = _Workplace(setup, lambda doing: pipe.send(Progress(doing)))
        pipe.send(Ready(workplace.core))
        while True:
            pipe.send(workplace.fulfil(pipe.recv()))
    except Refused as refusal:
        pipe.send(refusal.failure)
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:  # whatever TVM's client or the board raises is the user's answer
        pipe.send(broken(error))


class _Workplace:
    """A device to run on: this machine's processor or a board's."""

    def __init__(self, setup: Setup, begin: Callable[[str], None]) -> None:
        import tvm

        self._setup, self._begin = setup, begin
        self._session: Any = None
        self.core: str | None = None
        self._default: tuple[int, Callable[[], float]] | None = None
        if setup.board is None:
            self._device = tvm.cpu()
            use_threads(setup.threads)
            return
        board = setup.board
        begin(f"connecting to {board}")
        self._session = connect(board.host, board.port, board.key, begin)
        self._device, self.core = self._session.cpu(0), core_of(self._session)
        self._session.get_function("runtime.config_threadpool")(1, setup.threads)

    def fulfil(self, order: Order) -> Times | Unusable:
        """The times of a candidate and of the default, run in turn: A B B A."""
        try:
            default = self._default[1] if self._default and self._default[0] == order.number else None
            choices = (order.candidate,) if default else (order.default, order.candidate)
            built = [self._build(order.request, choice) for choice in choices]
        except Exception as error:  # LLVM and TVM raise all sorts; the default stays
            return Unusable(f"cannot be built: {broken(error).reason}")
        try:
            runs = [self._load(order.request, kernel, executable) for kernel, executable in built]
            runs = [default, *runs] if default else runs
            self._default = order.number, runs[0]
            times: tuple[list[float], list[float]] = [], []
            for pair in range(order.pairs):
                self._begin(f"timing it: {pair} of {order.pairs} pairs")
                for position in (0, 1) if pair % 2 else (1, 0):
                    times[position].append(runs[position]())
        except Exception as error:
            if self._session is not None:  # over RPC nothing tells a bad kernel from a broken connection
                raise
            return Unusable(broken(error).reason)
        return Times(tuple(times[0]), tuple(times[1]))

    def _build(self, request: Request, choice: Choice) -> tuple[Kernel, Any]:
        kernel = kernel_of(request.with_choice(choice))
        return kernel, build_calls(request, kernel, self._setup.target)

    def _load(self, request: Request, kernel: Kernel, executable: Any) -> Callable[[], float]:
        """A function that runs the kernel and returns the microseconds of one run."""
        import tvm
        from tvm import relax

        random = np.random.default_rng(0)
        shapes = [request.first.problem.input_shape, request.last.problem.output_shape]
        shapes += [request.last.problem.output_shape] * request.last.epilogue.residual
        arrays = [random.standard_normal(shape, np.float32) for shape in shapes]
        copies = copies_of(request, kernel)
        tensors = [tvm.runtime.tensor(array, self._device) for array in arrays]
        constants = [tvm.runtime.tensor(array, self._device) for array in kernel.constants]
        for _ in range(copies):
            tensors += [self._copy(constant) for constant in constants]
        machine = relax.VirtualMachine(self._carried(executable), self._device)
        machine.set_input(FUNCTION, *tensors)
        evaluator = machine.time_evaluator("invoke_stateful", self._device, number=1, repeat=1)
        return lambda: 1e6 * evaluator(FUNCTION).results[0] / copies

    def _copy(self, tensor: Any) -> Any:
        """Another tensor of the same content, without a second journey to the board."""
        import tvm

        return tensor.copyto(tvm.runtime.empty(tensor.shape, tensor.dtype, self._device))

    def _carried(self, executable: Any) -> Any:
        """The executable where it shall run; nothing of it stays in the board's folder."""
        if self._session is None:
            return executable
        from onexn_plugins.tvm_backend.output.linker import shared_library_linker

        with tempfile.TemporaryDirectory(prefix="onexn-") as folder:
            path = Path(folder) / f"{Path(folder).name}.so"
            executable.export_library(str(path), fcompile=shared_library_linker(self._setup.target))
            self._session.upload(str(path))
        library = self._session.load_module(path.name)
        self._session.remove(path.name)
        return library


FUNCTION = "timed"


def copies_of(request: Request, kernel: Kernel) -> int:
    """How many runs, each on its own copy of the weights, make a timed call."""
    problem = request.first.problem
    assert isinstance(problem, (Conv, Linear)), "what is tuned has blocks"
    pixels = math.prod(problem.output_shape[2:])
    macs = problem.batch * pixels * int(np.count_nonzero(request.first.array)) + 1
    weight_bytes = sum(array.nbytes for array in kernel.constants)
    return max(1, min(MOST_COPIES, -(-COLD_BYTES // weight_bytes), -(-MOST_MACS // macs)))


def build_calls(request: Request, kernel: Kernel, target: Target) -> Any:
    """A function of x, y, the residual if there is one, and all copies of the constants, that runs the kernel on each
    copy in turn."""
    import tvm
    from tvm import relax

    from onexn_plugins.tvm_backend.logs import TVM_CHATTER, without_lines
    from onexn_plugins.tvm_backend.output.tvm_library import compile_calls

    builder = relax.BlockBuilder()
    function = builder.add_func(kernel.func.without_attr("global_symbol"), "kernel")
    x, y = _parameter("x", request.first.problem.input_shape), _parameter("y", request.last.problem.output_shape)
    residual = [_parameter("residual", request.last.problem.output_shape)] * request.last.epilogue.residual
    copies = [[_parameter(f"c{copy}_{position}", array.shape, str(array.dtype))
               for position, array in enumerate(kernel.constants)] for copy in range(copies_of(request, kernel))]
    parameters = [x, y, *residual, *(constant for constants in copies for constant in constants)]
    with builder.function(FUNCTION, parameters, pure=False):
        for constants in copies:
            builder.emit(relax.Call(function, [x, *constants, *residual, y], None, [relax.TupleType([])]))
        builder.emit_func_output(y)
    with without_lines(*TVM_CHATTER):
        return compile_calls(builder.finalize(), tvm.target.Target(target.tvm))


def _parameter(name: str, shape: tuple[int, ...], dtype: str = "float32") -> Any:
    from tvm import relax

    return relax.Var(name, relax.TensorType(shape, dtype))
