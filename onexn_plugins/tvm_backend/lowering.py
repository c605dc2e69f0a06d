"""From Relax to what the virtual machine runs: an explicit list of passes.

TVM's default list cannot be used: its reshape pass refuses functions that are not made of blocks, as our kernels are.
Reshapes are left alone by LegalizeOps instead, and end as views of the same memory.
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax import transform

from onexn_plugins.tvm_backend.kernels import PASS_CONFIG
from onexn_plugins.tvm_backend.loops import ScheduleLoops


def compile_module(module: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """Compile a module whose kernels are PrimFuncs called by call_tir, and whose other operators are Relax's own."""
    with target, tvm.transform.PassContext(opt_level=3, config=dict(PASS_CONFIG)):
        return relax.build(module, target=target, relax_pipeline=_pipeline())


def _pipeline() -> tvm.transform.Pass:
    return tvm.transform.Sequential([
        # Operators to loops, neighbouring elementwise ones into one loop.
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
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        transform.AttachGlobalSymbol(),
    ])
