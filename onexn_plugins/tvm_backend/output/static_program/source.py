"""A program as C: tables of its tensors and calls, for runtime.c to run, and its constants for the assembler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from onexn_plugins.tvm_backend.output.static_program.program import ALIGNMENT, ARENA, Program, Tensor

_DTYPE_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}


def network_source(program: Program, input_names: Sequence[str], output_names: Sequence[str]) -> str:
    """network.c; names are those a user sees."""
    kernels = sorted({call.kernel for call in program.calls})
    prototypes = [f"extern int {_symbol(name)}(void *, const onexn_any *, int32_t, onexn_any *);" for name in kernels]
    arguments = [number for call in program.calls for number in call.arguments]
    return "\n".join([
        '#include "network.h"',
        '#include "program.h"',
        "",
        *prototypes,
        "",
        f"static unsigned char arena[{max(program.arena_bytes, 1)}] __attribute__((aligned({ALIGNMENT})));",
        "extern const unsigned char onexn_constants[];",
        "",
        *_shapes(program.tensors),
        _table("const onexn_dltensor onexn_dltensors", map(_dltensor, range(len(program.tensors)), program.tensors)),
        _table("const int32_t onexn_arguments", map(str, arguments)),
        _table("const onexn_call onexn_calls", _calls(program)),
        f"const int32_t onexn_num_calls = {len(program.calls)};",
        *_interface(program, "input", program.inputs, input_names),
        *_interface(program, "output", program.outputs, output_names),
        "",
    ])


def constants_source(file_name: str) -> str:
    """constants.S: the file's bytes as read-only data. Millions of numbers would take a C compiler minutes."""
    return "\n".join([
        ".section .rodata",
        f".balign {ALIGNMENT}",
        ".globl onexn_constants",
        "onexn_constants:",
        f".incbin {_string(file_name)}",
        '.section .note.GNU-stack,"",%progbits',
        "",
    ])


def _string(text: str) -> str:
    """A C string literal: printable ASCII as it is, all else in octal."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'


def _symbol(kernel: str) -> str:
    """TVM's name for a PrimFunc's entry that takes packed arguments."""
    return f"__tvm_ffi_{kernel}"


def _shapes(tensors: Sequence[Tensor]) -> Iterable[str]:
    for number, tensor in enumerate(tensors):
        shape = tensor.shape or (1,)
        strides = np.cumprod([1, *shape[:0:-1]])[::-1].tolist()
        yield _table(f"static const int64_t shape_{number}", map(str, shape))
        yield _table(f"static const int64_t strides_{number}", map(str, strides))


def _dltensor(number: int, tensor: Tensor) -> str:
    dtype = np.dtype(tensor.dtype)
    code, bits = _DTYPE_CODES[dtype.kind], 8 * dtype.itemsize
    memory = "arena" if tensor.memory == ARENA else "(unsigned char *)onexn_constants"
    return (f"{{{memory} + {tensor.offset}, {{ONEXN_CPU, 0}}, {len(tensor.shape)}, {{{code}, {bits}, 1}}, "
            f"shape_{number}, strides_{number}, 0}}")


def _calls(program: Program) -> Iterable[str]:
    first = 0
    for call in program.calls:
        yield f"{{{_symbol(call.kernel)}, {first}, {len(call.arguments)}}}"
        first += len(call.arguments)


def _interface(program: Program, role: str, numbers: Sequence[int], names: Sequence[str]) -> Iterable[str]:
    tensors = [program.tensors[number] for number in numbers]
    entries = [
        f'{{{_string(name)}, "{tensor.dtype}", {len(tensor.shape)}, shape_{number}, {tensor.nbytes}}}'
        for name, number, tensor in zip(names, numbers, tensors, strict=True)
    ]
    yield f"const int32_t onexn_num_{role}s = {len(numbers)};"
    yield _table(f"const int32_t onexn_{role}_numbers", map(str, numbers))
    yield _table(f"const onexn_tensor onexn_{role}s", entries)


def _table(declaration: str, entries: Iterable[str]) -> str:
    return f"{declaration}[] = {{{', '.join(entries)}}};"
