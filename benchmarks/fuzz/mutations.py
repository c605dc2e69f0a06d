"""Ways to damage a model. Each takes a copy of it and a source of randomness; which are drawn depends on a number."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Mutation = Callable[[ModelProto, random.Random], None]
SIZES = (-(2**62), -1, 0, 1, 2, 3, 7, 64, 2**16, 2**31 - 1, 2**31, 2**40, 2**62)
NUMBERS = (float("nan"), float("inf"), -float("inf"), 1e-45, 3e38, -3e38, 0.0, -1.0)
OPERATORS = ("Conv", "Relu", "Gemm", "MatMul", "Add", "Mul", "Reshape", "Concat", "MaxPool", "AveragePool", "Softmax",
             "Transpose", "Slice", "Gather", "Resize", "Pad", "Split", "Flatten", "Clip", "ReduceMean", "Div", "Sub",
             "Squeeze", "Unsqueeze", "Expand", "Tile", "Cast", "Shape", "Identity", "Dropout", "BatchNormalization",
             "LSTM", "If", "Loop", "NonZero", "TopK", "QuantizeLinear", "ConvTranspose", "Nonsense")
ELEMENTS = (TensorProto.UNDEFINED, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.INT8,
            TensorProto.STRING, TensorProto.BOOL, TensorProto.BFLOAT16, TensorProto.COMPLEX64, 77)
PATTERNS = ("", "[]", "{", "null", '{"w1": 3}', '{"w1": {"block_size": 1e9}}', '{"w2": {"block_size": 7}}',
            '{"w1": {"block_size": true}}', '{"w5": {"block_size": [4]}}', '{"w2": {"block_size": 8, "groups": -1}}')
PLACES = ("", ".", "/etc/hostname", "../model.onnx", "model.onnx", "absent.bin", "a\0b")


def mutant(models: list[ModelProto], number: int) -> bytes:
    """The file of that number: one of the models, damaged once to three times. The same number gives the same file."""
    draw = random.Random(number)
    model = ModelProto()
    model.CopyFrom(draw.choice(models))
    if draw.random() < 0.3:
        return damaged_bytes(model.SerializeToString(), draw)
    for _ in range(draw.choice((1, 1, 2, 3))):
        with suppress(ValueError, TypeError, KeyError, IndexError):  # it has nothing left to change
            draw.choice(MUTATIONS)(model, draw)
    return model.SerializeToString()


def damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    """Bytes changed, cut off, left out or doubled."""
    data = bytearray(content)
    kind, start = draw.randrange(4), draw.randrange(len(data))
    stop = min(len(data), start + draw.randrange(1, 64))
    if kind == 0:
        for _ in range(draw.randrange(1, 9)):
            data[draw.randrange(len(data))] = draw.randrange(256)
    elif kind == 1:
        del data[start:]
    elif kind == 2:
        del data[start:stop]
    else:
        data[start:start] = data[start:stop]
    return bytes(data)


def _weight_size(model: ModelProto, draw: random.Random) -> None:
    tensor = draw.choice(model.graph.initializer)
    if tensor.dims:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(SIZES)


def _refilled_weight(model: ModelProto, draw: random.Random) -> None:
    """Another size with data to match."""
    tensor = draw.choice(model.graph.initializer)
    values = numpy_helper.to_array(tensor)
    shape = [draw.choice((size, size, 0, 1, size + 1, 2 * size)) for size in values.shape]
    filled = np.resize(values, shape) if values.size else np.zeros(shape, values.dtype)
    tensor.CopyFrom(numpy_helper.from_array(filled, tensor.name))


def _input_size(model: ModelProto, draw: random.Random) -> None:
    item = draw.choice([*model.graph.input, *model.graph.output])
    dim = draw.choice(item.type.tensor_type.shape.dim)
    if draw.random() < 0.2:
        dim.dim_param = "size"
    else:
        dim.dim_value = draw.choice((*SIZES, 4, 5, 8, 9))


def _input_rank(model: ModelProto, draw: random.Random) -> None:
    shape = draw.choice(model.graph.input).type.tensor_type.shape
    if draw.random() < 0.5:
        shape.dim.add().dim_value = draw.choice((1, 2, 8))
    else:
        del shape.dim[draw.randrange(len(shape.dim))]


def _values(model: ModelProto, draw: random.Random) -> None:
    tensor = draw.choice(model.graph.initializer)
    values = np.array(numpy_helper.to_array(tensor))
    if values.size:
        whole = np.issubdtype(values.dtype, np.integer)
        values.flat[draw.randrange(values.size)] = draw.choice(SIZES) if whole else draw.choice(NUMBERS)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _weight_type(model: ModelProto, draw: random.Random) -> None:
    tensor = draw.choice(model.graph.initializer)
    if draw.random() < 0.5:
        tensor.data_type = draw.choice(ELEMENTS)
    else:
        kind = draw.choice((np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_))
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(kind), tensor.name))


def _input_type(model: ModelProto, draw: random.Random) -> None:
    draw.choice([*model.graph.input, *model.graph.output]).type.tensor_type.elem_type = draw.choice(ELEMENTS)


def _weight_gone(model: ModelProto, draw: random.Random) -> None:
    del model.graph.initializer[draw.randrange(len(model.graph.initializer))]


def _weight_twice(model: ModelProto, draw: random.Random) -> None:
    model.graph.initializer.append(draw.choice(model.graph.initializer))


def _external(model: ModelProto, draw: random.Random) -> None:
    tensor = draw.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", draw.choice(PLACES)), ("offset", str(draw.choice(SIZES))),
                       ("length", draw.choice(("", "x", "4", "-4", str(2**70))))):
        tensor.external_data.add(key=key, value=value)


def _some_node(model: ModelProto, draw: random.Random) -> NodeProto:
    return draw.choice(model.graph.node) if model.graph.node else model.graph.node.add()


def _attribute_value(model: ModelProto, draw: random.Random) -> None:
    node = _some_node(model, draw)
    attribute = draw.choice(node.attribute) if node.attribute else node.attribute.add(name="group")
    name = draw.choice((attribute.name, attribute.name, attribute.name, "pads", "strides", "group", "axis", "nonsense"))
    value = draw.choice((draw.choice(SIZES), draw.choice(NUMBERS), "text", [], [draw.choice(SIZES)] * 2,
                         [1, 1], [0, 0], [2, 2, 2, 2], [-1, -1, 0, 0], [1.5], ["a"], b"\xff\xfe"))
    attribute.CopyFrom(AttributeProto(name=name, type=AttributeProto.INTS) if value == [] else
                       helper.make_attribute(name, value))


def _attribute_type(model: ModelProto, draw: random.Random) -> None:
    node = _some_node(model, draw)
    if node.attribute:
        draw.choice(node.attribute).type = draw.choice(AttributeProto.AttributeType.values())


def _attribute_gone(model: ModelProto, draw: random.Random) -> None:
    node = _some_node(model, draw)
    if node.attribute:
        del node.attribute[draw.randrange(len(node.attribute))]


def _operator(model: ModelProto, draw: random.Random) -> None:
    _some_node(model, draw).op_type = draw.choice(OPERATORS)


def _domain(model: ModelProto, draw: random.Random) -> None:
    _some_node(model, draw).domain = draw.choice(("ai.onnx", "ai.onnx.ml", "com.microsoft", "example"))


def _rewired(model: ModelProto, draw: random.Random) -> None:
    """Another value as input: a cycle, a shape that does not fit, or nothing known."""
    node = _some_node(model, draw)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)] + ["", "absent"]
    if node.input:
        node.input[draw.randrange(len(node.input))] = draw.choice(names)


def _arity(model: ModelProto, draw: random.Random) -> None:
    node = _some_node(model, draw)
    names = draw.choice((node.input, node.output))
    if names and draw.random() < 0.5:
        del names[draw.randrange(len(names))]
    else:
        names.append(draw.choice(("x", "", "extra", "w1")))


def _node_gone(model: ModelProto, draw: random.Random) -> None:
    if model.graph.node:
        del model.graph.node[draw.randrange(len(model.graph.node))]


def _node_twice(model: ModelProto, draw: random.Random) -> None:
    model.graph.node.append(_some_node(model, draw))


def _swapped(model: ModelProto, draw: random.Random) -> None:
    nodes = [*model.graph.node]
    draw.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _opset(model: ModelProto, draw: random.Random) -> None:
    kind = draw.randrange(3)
    if kind == 0:
        del model.opset_import[:]
    elif kind == 1:
        model.opset_import.append(helper.make_opsetid("", draw.randrange(30)))
    elif model.opset_import:
        model.opset_import[0].version = draw.choice((-1, 0, 6, 9, 10, 11, 12, 13, 14, 17, 20, 22, 24, 25, 99, 2**40))


def _interface(model: ModelProto, draw: random.Random) -> None:
    """Inputs and outputs missing, doubled, renamed, or standing for each other."""
    items = draw.choice((model.graph.input, model.graph.output))
    kind = draw.randrange(3)
    if kind == 0 and items:
        del items[draw.randrange(len(items))]
    elif kind == 1 and items:
        items.append(draw.choice(items))
    elif items:
        draw.choice(items).name = draw.choice(("", "x", "w1", "a", "unknown"))


def _metadata(model: ModelProto, draw: random.Random) -> None:
    helper.set_model_props(model, {"onexn.pattern": draw.choice(PATTERNS)})


def _function(model: ModelProto, draw: random.Random) -> None:
    """A local function that a node calls; it may call itself."""
    name = "helper" if draw.random() < 0.5 else "itself"
    body = [helper.make_node("Relu" if name == "helper" else name, ["p"], ["q"],
                             domain="" if name == "helper" else "local")]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    model.functions.append(helper.make_function("local", name, ["p"], ["q"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    node = _some_node(model, draw)
    node.op_type, node.domain = name, "local"


def _branch(model: ModelProto, draw: random.Random) -> None:
    """An If whose branches are copies of the graph."""
    node = model.graph.node.add(op_type="If", name="if")
    node.input.append(draw.choice(("x", "w1", "")))
    node.output.append("branched")
    for side in ("then_branch", "else_branch"):
        node.attribute.append(helper.make_attribute(side, model.graph))
    model.graph.output[-1].name = "branched"


MUTATIONS: tuple[Mutation, ...] = (
    _weight_size, _refilled_weight, _input_size, _input_rank, _values, _weight_type, _input_type, _weight_gone,
    _weight_twice, _external, _attribute_value, _attribute_value, _attribute_value, _attribute_type, _attribute_gone,
    _operator, _operator, _domain, _rewired, _rewired, _arity, _node_gone, _node_twice, _swapped, _opset, _interface,
    _metadata, _function, _branch,
)
