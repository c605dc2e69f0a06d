"""Takes a planned network's memory out of it: each weight and activation gets a fixed place in one block of bytes.

    bind(memory) -> bound              the network on that block, once and for all
    main(inputs..., bound)             runs it
    network(inputs..., tensors...)     the calls of kernels it ends in

Weights come first, so that a file with them is the beginning of the block. Left to itself TVM would keep the weights
inside the library, where serialising, linking and loading copy them, and make each activation's tensor in each run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

# Every tensor starts at a multiple of this: kernels may use aligned vector loads, and TVM makes no view elsewhere.
ALIGNMENT = 64
MAIN, BIND, NETWORK = "main", "bind", "network"
# TVM's word for functions whose calls write into what they are given.
_IMPURE = {"relax.force_pure": True}


@dataclass(frozen=True)
class Placed:
    """A network without memory of its own.

    Attributes:
        module: the functions above, and the kernels.
        weights: (place, values), one behind the other.
        weight_bytes: where they end.
        memory_bytes: where the activations behind them end.
    """

    module: tvm.IRModule
    weights: list[tuple[int, np.ndarray]]
    weight_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class _Tensor:
    """What lies at a place."""

    place: int
    shape: tuple[int, ...]
    dtype: str


def place(module: tvm.IRModule) -> Placed:
    """The memory of "main", as lowering plans it, at fixed places. What the planner left to run time stays so."""
    main, mover = module[MAIN], _Mover()
    relax.analysis.post_order_visit(main, mover.take_weight)
    weight_bytes = mover.end
    blocks = [relax.BindingBlock(list(mover.remaining(block.bindings))) for block in main.body.blocks]
    body = relax.SeqExpr(blocks, mover.value(main.body.body))
    network = relax.Function([*main.params, *mover.tensors.values()], body, main.ret_ty, main.is_pure, main.attrs)
    memory_bytes = max(mover.end, ALIGNMENT)  # TVM makes no tensor of nothing
    kernels = {name: function for name, function in module.functions.items() if name.name_hint != MAIN}
    placed = _with_entries(tvm.IRModule(kernels), network, len(main.params), list(mover.tensors), memory_bytes)
    return Placed(placed, mover.weights, weight_bytes, memory_bytes)


def aligned(nbytes: int) -> int:
    """Bytes to the next tensor's place."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class _Mover:
    """Turns weights and activations of "main" into parameters.

    Attributes:
        tensors: the parameter of each.
        weights: (place, values).
        end: bytes given out so far.
    """

    def __init__(self) -> None:
        self.tensors: dict[_Tensor, relax.Var] = {}
        self.weights: list[tuple[int, np.ndarray]] = []
        self.end = 0
        self._storages: dict[relax.Var, int] = {}
        self._moved: dict[relax.Expr, _Tensor] = {}
        self._tuples: dict[relax.Expr, list[relax.Expr]] = {}

    def take_weight(self, expression: relax.Expr) -> None:
        """Give it a place, if it is a tensor's values that have none yet."""
        tensor = isinstance(expression, tvm.ir.Constant) and isinstance(expression.value, tvm.runtime.Tensor)
        if tensor and expression not in self._moved:
            values = np.from_dlpack(expression.value)
            self._moved[expression] = _Tensor(self._allocate(values.nbytes), values.shape, str(values.dtype))
            self.weights.append((self._moved[expression].place, values))

    def remaining(self, bindings: Iterable[relax.Binding]) -> Iterable[relax.Binding]:
        """What there is to do in each run, on parameters."""
        for binding in bindings:
            variable, value = binding.var, binding.value
            name = value.op.name if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op) else None
            if name == "relax.memory.alloc_storage":
                self._storages[variable] = self._allocate(int(value.args[0].values[0]))
            elif name == "relax.memory.alloc_tensor":
                self._move(variable, self._storages[value.args[0]] + int(value.args[1].value))
            elif name == "relax.reshape" and value.args[0] in self._moved:
                self._move(variable, self._moved[value.args[0]].place)
            elif value in self._moved:
                self._moved[variable] = self._moved[value]
            elif isinstance(value, relax.Tuple):
                self._tuples[variable] = list(value.fields)
            elif isinstance(value, relax.TupleGetItem) and value.tuple_value in self._tuples:
                field = self._tuples[value.tuple_value][value.index]
                if field in self._moved:
                    self._moved[variable] = self._moved[field]
                else:  # an output, which each run allocates
                    yield relax.VarBinding(variable, self.value(field))
            elif isinstance(value, relax.Call):
                yield relax.VarBinding(variable, self._call(value))
            else:
                yield relax.VarBinding(variable, self.value(value))

    def value(self, expression: relax.Expr) -> relax.Expr:
        """A variable, constant or tuple of them, on parameters."""
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self.value(field) for field in expression.fields])
        if expression in self._tuples:
            return relax.Tuple([self.value(field) for field in self._tuples[expression]])
        tensor = self._moved.get(expression)
        if tensor is None:
            return expression
        # TVM would check, in each run, what has a type of its own.
        return self.tensors.setdefault(tensor, relax.Var(f"tensor_{len(self.tensors)}", relax.AnyType()))

    def _call(self, call: relax.Call) -> relax.Call:
        arguments = [self.value(argument) for argument in call.args]
        if isinstance(call.op, tvm.ir.GlobalVar):  # by its name: by itself it would insist on the types
            return _call_by_name(call.op.name_hint, *arguments)
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)

    def _move(self, variable: relax.Var, place: int) -> None:
        self._moved[variable] = _Tensor(place, tuple(map(int, variable.ty.shape)), str(variable.ty.dtype))

    def _allocate(self, nbytes: int) -> int:
        place, self.end = self.end, self.end + aligned(nbytes)
        return place


def _with_entries(module: tvm.IRModule, network: relax.Function, inputs: int, tensors: list[_Tensor],
                  memory_bytes: int) -> tvm.IRModule:
    """The module with `network`, `bind` and `main` in it."""
    builder = relax.BlockBuilder(module)
    called = builder.add_func(network.without_attr("global_symbol"), NETWORK)

    memory = relax.Var("memory", relax.TensorType((memory_bytes,), "uint8"))
    with builder.function(BIND, [memory], _IMPURE):
        views = [_view(builder, memory, tensor) for tensor in tensors]
        builder.emit_func_output(builder.emit(_call_by_name("vm.builtin.make_closure", called, *views)))

    given = [relax.Var(parameter.name, parameter.ty) for parameter in network.params[:inputs]]
    bound = relax.Var("bound", relax.AnyType())
    with builder.function(MAIN, [*given, bound], _IMPURE):
        call = relax.op.invoke_closure(bound, relax.Tuple(given), network.ret_ty)
        builder.emit_func_output(builder.emit(call))
    return builder.finalize()


def _view(builder: relax.BlockBuilder, memory: relax.Var, tensor: _Tensor) -> relax.Var:
    shape, dtype = relax.ShapeExpr(tensor.shape), tvm.ir.GenericConst(tvm.DataType(tensor.dtype), relax.AnyType())
    view = _call_by_name("runtime.TVMTensorCreateView", memory, shape, dtype, relax.prim_value(tensor.place))
    return builder.emit(_call_by_name("vm.builtin.ensure_zero_offset", builder.emit(view)))


def _call_by_name(name: str, *arguments: relax.Expr) -> relax.Call:
    return relax.Call(relax.ExternFunc(name), list(arguments), ty_args=[relax.AnyType()])
