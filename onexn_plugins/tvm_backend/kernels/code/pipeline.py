"""How kernels are compiled: the settings they need, and TVM's passes over loops.

A kernel is loops over flat buffers. Of TVM's default pipeline most passes are about what TVM's own schedules leave
behind (blocks, threads, shared memory); over kernels they find nothing and take a quarter of the time of compiling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import s_tir
from tvm.tirx import get_tir_pipeline, register_tir_pipeline

PASS_CONFIG = {"tirx.disable_storage_rewrite": True}  # see vector.py
PIPELINE = "onexn"
_LOOPS = "onexn_loops"


def as_loops(function: Any) -> Any:
    """The PrimFunc, marked as loops over flat buffers and nothing else: no blocks, no threads."""
    return function.with_attr(_LOOPS, True)


def compile_kernels(functions: Mapping[str, Any], target: tvm.target.Target) -> Any:
    """PrimFuncs, by name, compiled as the backend compiles those of a network."""
    with tvm.transform.PassContext(opt_level=3, config=PASS_CONFIG):
        return tvm.compile(tvm.IRModule(functions), target=target, tir_pipeline=PIPELINE)


def _pipeline() -> tuple[Any, Any, Any]:
    """TVM's default for what its own schedules made, its short one for loops."""
    scheduled, host, device = get_tir_pipeline("default")
    loops, _, _ = get_tir_pipeline("tirx")
    # As in the default pipeline: loops that start elsewhere than at zero are moved there.
    loops = tvm.transform.Sequential([s_tir.transform.CanonicalizeLoop(), loops])

    @tvm.transform.module_pass(opt_level=0, name="onexn.Lower")
    def lower(module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        functions = dict(module.functions_items())
        lowered = tvm.IRModule({}, attrs=module.attrs)
        for passes, marked in ((scheduled, False), (loops, True)):
            chosen = {name: function for name, function in functions.items() if (_LOOPS in function.attrs) == marked}
            if chosen:
                lowered.update(passes(tvm.IRModule(chosen, attrs=module.attrs)))
        return lowered

    return lower, host, device


register_tir_pipeline(PIPELINE, _pipeline)
