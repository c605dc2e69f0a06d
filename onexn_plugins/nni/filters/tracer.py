"""NNI's concrete tracer on today's Python and torch.

NNI 3.0 is from 2023. Its tracer, which ModelSpeedup needs, stumbles over six things that came later:

- torch: builtin functions without a module name, which it takes for functions to wrap;
- torch: `torch.fx.Node.is_impure` has gained an argument;
- Python 3.11: it finds the running instruction by `f_lasti // 2`, but bytecode now holds caches in between;
- Python 3.13: a value becomes true or false in an instruction of its own, TO_BOOL;
- Python 3.12: `functools.wraps` copies `__type_params__`, which the functions it wraps cannot take;
- `torch._assert` in a forward stays in the graph, and ModelSpeedup has no rule for it.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from nni.common.concrete_trace_utils import concrete_proxy, concrete_tracer

# Builtins of these classes have no module name either, but the tracer handles them. torch has renamed the first one.
_KNOWN_CLASSES = ("_TensorBase", "_VariableFunctionsClass")


@contextmanager
def tracing_on_this_torch() -> Iterator[None]:
    """While it lasts, NNI's concrete tracer works on today's Python and torch."""
    tracer = concrete_tracer.ConcreteTracer
    leaves = tracer.default_autowrap_leaf_function
    is_impure = concrete_tracer.node_is_impure_wrapper
    proxy = concrete_proxy.ConcreteProxy
    with ExitStack() as changes:
        changes.enter_context(patch.object(tracer, "default_autowrap_leaf_function", {
            function: value for function, value in leaves.items() if not _has_no_name(function)}))
        changes.enter_context(patch.object(
            concrete_tracer, "node_is_impure_wrapper", lambda node, *arguments, **options: is_impure(node)))
        changes.enter_context(patch.object(concrete_proxy, "dis", _with_caches()))
        changes.enter_context(patch.object(proxy, "jump_opcodes", tuple(
            code for name, code in dis.opmap.items() if "JUMP" in name and "IF" in name)))
        changes.enter_context(patch.object(proxy, "jump_before_opcodes", (
            *proxy.jump_before_opcodes, *(code for name, code in dis.opmap.items() if name == "TO_BOOL"))))
        changes.enter_context(patch.object(concrete_tracer, "functools", _wrapping_without_type_parameters()))
        changes.enter_context(_without_asserts())
        yield


def _has_no_name(function: Any) -> bool:
    return getattr(function, "__module__", "") is None and not getattr(function, "__qualname__", "").startswith(
        _KNOWN_CLASSES)


def _with_caches() -> SimpleNamespace:
    """The module `dis`, whose instructions stand where `f_lasti // 2` finds them.

    An instruction's caches give way to the next instruction, which NNI looks for in the next place.
    """
    def get_instructions(code: Any) -> list[dis.Instruction]:
        placed: list[dis.Instruction] = []
        for instruction in dis.get_instructions(code):  # not show_caches, which means nothing since Python 3.13
            placed += [instruction] * (instruction.offset // 2 - len(placed) + 1)
        return placed

    module = SimpleNamespace(**vars(dis))
    module.get_instructions = get_instructions
    return module


def _wrapping_without_type_parameters() -> SimpleNamespace:
    """The module `functools`, whose wraps leaves out what builtins cannot take."""
    names = tuple(name for name in functools.WRAPPER_ASSIGNMENTS if name != "__type_params__")
    module = SimpleNamespace(**vars(functools))
    module.wraps = lambda wrapped: functools.wraps(wrapped, assigned=names)
    return module


@contextmanager
def _without_asserts() -> Iterator[None]:
    """Models that call torch._assert, timm's for one, are traced without it; they were run before, and held."""
    def assert_nothing(condition: Any, message: str = "") -> None:
        pass

    holders: list[tuple[dict[str, Any], str, Callable[..., Any]]] = []
    original = torch._assert
    for module in list(sys.modules.values()):
        names = vars(module) if hasattr(module, "__dict__") else {}
        if str(names.get("__name__", "")).startswith(("nni", "torch.")):
            continue
        holders += [(names, name, value) for name, value in list(names.items()) if value is original]
    for names, name, _ in holders:
        names[name] = assert_nothing
    try:
        yield
    finally:
        for names, name, value in holders:
            names[name] = value
