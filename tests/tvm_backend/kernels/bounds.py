"""Every access of a kernel checked at run time: an index outside its buffer raises instead of touching memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tvm import tirx
from tvm.ir import StringImm
from tvm_ffi import StructuralKey

# By buffer the one that it is a view of, and the index there of its first value.
Views = dict[Any, tuple[Any, Any]]

_FIELDS = ("a", "b", "value", "base", "condition", "true_value", "false_value", "args", "vectors", "indices")


def with_bounds_checks(func: Any) -> Any:
    """The same function with assertions before the statements that read or write a buffer."""
    return func.with_body(_checked(func.body, {}))


def _checked(statement: Any, views: Views) -> Any:
    children = list(statement.seq) if isinstance(statement, tirx.SeqStmt) else [statement]
    views = {**views, **_views(children)}
    accesses = [_behind(views, *access) for child in children for access in _accesses(child)]
    statements = [*_assertions(accesses), *(_with_checked_body(child, views) for child in children)]
    return tirx.SeqStmt(statements) if len(statements) > 1 else statements[0]


def _with_checked_body(statement: Any, views: Views) -> Any:
    if isinstance(statement, tirx.For):
        return tirx.For(statement.loop_var, statement.min, statement.extent, statement.kind,
                        _checked(statement.body, views), statement.thread_binding, statement.annotations,
                        statement.step)
    if isinstance(statement, tirx.IfThenElse):
        other = None if statement.else_case is None else _checked(statement.else_case, views)
        return tirx.IfThenElse(statement.condition, _checked(statement.then_case, views), other)
    return statement


def _views(statements: Iterable[Any]) -> Views:
    """Buffers declared at an address inside of another: that one and where."""
    addresses = {found.var: found.value.args[0] for found in statements if isinstance(found, tirx.Bind)}
    return {found.buffer: (addresses[found.data].source, addresses[found.data].indices[0])
            for found in statements if isinstance(found, tirx.DeclBuffer) and found.data in addresses}


def _behind(views: Views, buffer: Any, index: Any) -> tuple[Any, Any]:
    """The access as one of the buffer that a view is of."""
    if buffer not in views:
        return buffer, index
    whole, first = views[buffer]
    if isinstance(index, tirx.Ramp):
        return whole, tirx.Ramp(first + index.base, index.stride, index.lanes)
    return whole, first + index


def _accesses(statement: Any) -> Iterator[tuple[Any, Any]]:
    """(buffer, index) of what a statement itself reads and writes; the statements inside it are looked into later."""
    if isinstance(statement, tirx.For):
        yield from _loads(statement.min)
        yield from _loads(statement.extent)
    elif isinstance(statement, tirx.IfThenElse):
        yield from _loads(statement.condition)
    elif isinstance(statement, tirx.BufferStore):
        yield from _loads(statement.value)
        yield statement.buffer, statement.indices[0]
    else:
        known = (tirx.DeclBuffer, tirx.AllocBuffer, tirx.Bind, tirx.Evaluate)  # the last may fetch beyond the end
        assert isinstance(statement, known), f"{type(statement)} is not looked into"


def _loads(expression: Any) -> Iterator[tuple[Any, Any]]:
    source = getattr(expression, "source", None)
    if source is not None:
        yield source, expression.indices[0]
    for field in _FIELDS:
        child = getattr(expression, field, None)
        if hasattr(child, "ty"):
            yield from _loads(child)
        elif child is not None and not isinstance(child, (int, float)):
            for element in child:
                yield from _loads(element)


def _assertions(accesses: Iterable[tuple[Any, Any]]) -> Iterator[Any]:
    """One assertion for all accesses of a buffer whose indices differ by constants."""
    spans: dict[tuple[Any, Any], tuple[Any, Any, int, int]] = {}
    for buffer, index in accesses:
        if int(buffer.shape[0]) == 1:
            continue  # a register
        reach = 0
        if isinstance(index, tirx.Ramp):
            index, reach = index.base, int(index.stride) * (int(index.lanes) - 1)
        base, offset = _split(index)
        key = buffer, StructuralKey(base)
        _, _, low, high = spans.get(key, (buffer, base, offset, offset))
        spans[key] = buffer, base, min(low, offset), max(high, offset + reach)
    for buffer, base, low, high in spans.values():
        inside = tirx.all(base + low >= 0, base + high < buffer.shape[0])
        yield tirx.AssertStmt(inside, StringImm("IndexError"), [StringImm(f"outside of a buffer of {buffer.shape}")])


def _split(index: Any) -> tuple[Any, int]:
    """index as (something, constant)."""
    if isinstance(index, tirx.IntImm):
        return tirx.IntImm("int32", 0), int(index.value)
    if isinstance(index, tirx.Add):
        left, first = _split(index.a)
        right, second = _split(index.b)
        return left + right, first + second
    return index, 0
