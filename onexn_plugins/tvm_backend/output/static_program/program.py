"""A network as a plain program: tensors at fixed places, and kernels called on them in a fixed order.

This is what is left of a Relax module once its memory is planned. Nothing is allocated, no shape is computed and
nothing is looked up while it runs, so a few lines of C can run it on a board for which there is no TVM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax, tirx

from onexn_plugins.errors import OneXNError

# Every tensor starts at a multiple of this: TVM's kernels may use aligned vector loads.
ALIGNMENT = 64
ARENA, CONSTANTS = "arena", "constants"


@dataclass(frozen=True)
class Tensor:
    """A tensor's place: so many bytes into the arena (working memory) or the constants."""

    shape: tuple[int, ...]
    dtype: str
    memory: str
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Call:
    """One kernel's run on tensors, numbered as in Program.tensors."""

    kernel: str
    arguments: tuple[int, ...]


@dataclass
class Program:
    """See the module's first lines.

    Attributes:
        tensors: all that calls name.
        calls: in the order they run.
        inputs, outputs: numbers of the network's own tensors.
        arena_bytes: working memory, inputs and outputs included.
        constants: the bytes of weights and encoded blocks.
    """

    tensors: list[Tensor] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    arena_bytes: int = 0
    constants: bytearray = field(default_factory=bytearray, repr=False)


def read_program(module: tvm.IRModule) -> Program:
    """The program of `lowering.plan_memory`'s result.

    Raises:
        OneXNError: the module does something that only TVM's virtual machine can; names it.
    """
    reader = _Reader(Program())
    main = module["main"]
    for parameter in main.params:
        reader.program.inputs.append(reader.bind(parameter, reader.allocate(parameter.ty)))
    for block in main.body.blocks:
        for binding in block.bindings:
            reader.read(binding.var, binding.value)
    result = reader.value(main.body.body)
    reader.program.outputs.extend(result if isinstance(result, tuple) else [result])
    return reader.program


def kernels(module: tvm.IRModule) -> tvm.IRModule:
    """The module's PrimFuncs alone, each under the name its calls use."""
    functions = {name: function for name, function in module.functions.items() if isinstance(function, tirx.PrimFunc)}
    return tvm.IRModule({name: function.with_attr("global_symbol", name.name_hint)
                         for name, function in functions.items()})


class _Reader:
    """Follows the bindings of "main": what each variable stands for, as numbers of tensors."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._values: dict[relax.Var, int | tuple[int, ...]] = {}
        self._storages: dict[relax.Var, int] = {}

    def bind(self, variable: relax.Var, value: int) -> int:
        self._values[variable] = value
        return value

    def allocate(self, type_: relax.TensorType) -> int:
        """A tensor with memory of its own."""
        tensor = _tensor(type_, ARENA, self.program.arena_bytes)
        self.program.arena_bytes += _aligned(tensor.nbytes)
        return self._add(tensor)

    def read(self, variable: relax.Var, value: relax.Expr) -> None:
        """Take in one binding."""
        if not isinstance(value, relax.Call):
            self._values[variable] = self.value(value)
        elif isinstance(value.op, tvm.ir.GlobalVar):
            arguments = tuple(self._one(argument) for argument in value.args)
            self.program.calls.append(Call(value.op.name_hint, arguments))
        else:
            self._read_builtin(variable, value)

    def _read_builtin(self, variable: relax.Var, call: relax.Call) -> None:
        name = str(call.op.global_symbol if isinstance(call.op, relax.ExternFunc) else call.op.name)
        if name == "relax.memory.alloc_storage":
            self._storages[variable] = self.program.arena_bytes
            self.program.arena_bytes += _aligned(int(call.args[0].values[0]))
        elif name == "relax.memory.alloc_tensor":
            offset = self._storages[call.args[0]] + int(call.args[1].value)
            self._values[variable] = self._add(_tensor(variable.ty, ARENA, offset))
        elif name == "relax.builtin.alloc_tensor":
            self._values[variable] = self.allocate(variable.ty)
        elif name == "relax.reshape":
            source = self.program.tensors[self._one(call.args[0])]
            self._values[variable] = self._add(_tensor(variable.ty, source.memory, source.offset))
        else:
            raise OneXNError(f"operator {name!r}", "needs TVM's virtual machine, which this target does without",
                             "Replace it in the model by standard layers and export again")

    def value(self, expression: relax.Expr) -> int | tuple[int, ...]:
        """What a variable, constant or tuple of them stands for."""
        if isinstance(expression, tvm.ir.Constant):
            return self._constant(expression)
        if isinstance(expression, relax.Tuple):
            return tuple(self._one(field) for field in expression.fields)
        if isinstance(expression, relax.TupleGetItem):
            whole = self.value(expression.tuple_value)
            assert isinstance(whole, tuple)
            return whole[int(expression.index)]
        return self._values[expression]

    def _one(self, expression: relax.Expr) -> int:
        value = self.value(expression)
        assert isinstance(value, int), "kernels take tensors, not tuples of them"
        return value

    def _constant(self, constant: tvm.ir.Constant) -> int:
        content = np.ascontiguousarray(constant.value.numpy())
        offset = len(self.program.constants)
        self.program.constants += content.tobytes() + bytes(_aligned(content.nbytes) - content.nbytes)
        return self._add(Tensor(content.shape, str(content.dtype), CONSTANTS, offset))

    def _add(self, tensor: Tensor) -> int:
        self.program.tensors.append(tensor)
        return len(self.program.tensors) - 1


def _tensor(type_: relax.TensorType, memory: str, offset: int) -> Tensor:
    return Tensor(tuple(int(size) for size in type_.shape), str(type_.dtype), memory, offset)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
