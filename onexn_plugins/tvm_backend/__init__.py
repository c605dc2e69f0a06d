"""Compiles 1×N-pruned networks with TVM: sparse kernels of our own, for this machine and for ARM."""

from __future__ import annotations

from importlib.util import find_spec

from onexn_plugins.errors import MissingDependencyError

for _package, _module in (("apache-tvm", "tvm"), ("onnx", "onnx")):
    if find_spec(_module) is None:
        raise MissingDependencyError(_package, "tvm")

from onexn_plugins.tvm_backend.compile import (  # noqa: E402
    compile_model,
    compile_module,
    describe_module,
    describe_onnx,
    inspect_module,
    inspect_onnx,
)
from onexn_plugins.tvm_backend.output.artefact import Artefact  # noqa: E402
from onexn_plugins.tvm_backend.output.artefact import read as read_artefact  # noqa: E402
from onexn_plugins.tvm_backend.planning.unserved import SlowOperators  # noqa: E402
from onexn_plugins.tvm_backend.processors import targets  # noqa: E402
from onexn_plugins.tvm_backend.running.compiled import Compiled, load  # noqa: E402
from onexn_plugins.tvm_backend.running.rpc import Board, RemoteRun, parse_board, run_remotely  # noqa: E402
from onexn_plugins.tvm_backend.tuning.search import tune  # noqa: E402

__all__ = [
    "Artefact", "Board", "Compiled", "RemoteRun", "SlowOperators", "compile_model", "compile_module",
    "describe_module", "describe_onnx", "inspect_module", "inspect_onnx", "load", "parse_board", "read_artefact",
    "run_remotely", "targets", "tune",
]
