"""From Relax to what runs: an explicit list of passes.

TVM's default list cannot be used: its reshape pass refuses functions that are not made of blocks, as our kernels are.
Reshapes are left alone by LegalizeOps instead, and end as views of the same memory.
"""

from __future__ import annotations

import tvm
from tvm.relax import transform

from onexn_plugins.tvm_backend.kernels.code.pipeline import PASS_CONFIG
from onexn_plugins.tvm_backend.lowering.loops import ScheduleLoops

# Functions check their arguments, in as much code as a small kernel has itself: half of LLVM's time. A network hands
# over what it planned; what a caller gives is checked where the network starts.
_CONFIG = {**PASS_CONFIG, "tirx.disable_assert": True}


def plan_memory(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """The same module as a plain list of kernel calls on planned memory."""
    with target, pass_context():
        return tvm.transform.Sequential(_planning())(module)


def pass_context() -> tvm.transform.PassContext:
    """The settings that our kernels have to be built with."""
    return tvm.transform.PassContext(opt_level=3, config=dict(_CONFIG))


def _planning() -> list[tvm.transform.Pass]:
    return [
        # Operators to loops, neighbouring elementwise ones into one function; erf, exp and tanh as polynomials.
        transform.FastMathTransform(),
        transform.DecomposeOpsForInference(),
        transform.LegalizeOps(skip_ops=["relax.reshape"]),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
        ScheduleLoops(),
        # Functional to in-place, with all memory planned ahead.
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
    ]
