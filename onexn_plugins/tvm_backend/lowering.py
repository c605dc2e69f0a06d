"""From Relax to what runs: an explicit list of passes.

TVM's default list cannot be used: its reshape pass refuses functions that are not made of blocks, as our kernels are.
Reshapes are left alone by LegalizeOps instead, and end as views of the same memory.
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax import transform

from onexn_plugins.tvm_backend.kernels import PASS_CONFIG
from onexn_plugins.tvm_backend.loops import ScheduleLoops
from onexn_plugins.tvm_backend.placement import place
from onexn_plugins.tvm_backend.vm_network import VMNetwork

# Functions check their arguments, in as much code as a small kernel has itself: half of LLVM's time. A network hands
# over what it planned; what a caller gives is checked where the network starts.
_CONFIG = {**PASS_CONFIG, "tirx.disable_assert": True}


def compile_module(module: tvm.IRModule, target: tvm.target.Target) -> VMNetwork:
    """Compile a module whose kernels are PrimFuncs called by call_tir, and whose other operators are Relax's own."""
    placed = place(plan_module(module, target))
    code = compile_calls(placed.module, target)
    return VMNetwork.build(code, placed.weights, placed.weight_bytes, placed.memory_bytes)


def compile_calls(module: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """Compile functions that only call kernels, on memory that they are given."""
    with target, pass_context():
        return relax.build(module, target=target, relax_pipeline=tvm.transform.Sequential(_virtual_machine()))


def plan_module(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
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


def _virtual_machine() -> list[tvm.transform.Pass]:
    return [
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        transform.AttachGlobalSymbol(),
    ]
