"""Makes the network of a number: operators one after the other, each tried by onnxruntime on what there is."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from benchmarks.fuzz.networks.operators import MAKERS, Made, array
from onexn_plugins.tvm_backend.checking.reference import onnxruntime_session

OPSET = 20
SHAPES = ((1, 4, 7, 9), (1, 3, 8, 8), (2, 6, 5, 5), (1, 8, 1, 1), (1, 6, 12), (3, 10), (2, 5, 8), (1, 16))
MOST_NODES, MOST_ELEMENTS = 6, 20000


@dataclass
class Network:
    """A network under construction.

    Attributes:
        nodes, constants: what it is made of.
        values: every float value that there is, as onnxruntime computes it; the inputs first.
        inputs: how many of them are.
    """

    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: int = 1

    def model(self) -> ModelProto:
        """With every value that nothing reads as an output."""
        read = {name for node in self.nodes for name in node.input}
        names = list(self.values)
        given = [_info(name, self.values[name]) for name in names[:self.inputs]]
        made = [_info(name, self.values[name]) for name in names[self.inputs:] if name not in read]
        return _model(self.nodes, given, made, self.constants)


def network(number: int) -> ModelProto:
    """The same one for the same number."""
    random = Random(number)
    made = Network(inputs=random.choice([1, 1, 1, 2]))
    for place in range(made.inputs):
        made.values[f"x{place}"] = array(random, *random.choice(SHAPES))
    wanted = random.randint(1, MOST_NODES)
    for _ in range(8 * wanted):
        if len(made.nodes) == wanted:
            break
        # Mostly chains: what is fused follows each other.
        names = list(made.values)
        source = names[-1] if random.random() < 0.75 else random.choice(names)
        maker = random.choice(MAKERS)
        item = maker(random, made.values[source].shape) if made.values[source].ndim else None
        if item is not None:
            _append(made, item, source, random)
    if not made.nodes:
        _append(made, Made("Relu"), "x0", random)
    return made.model()


def _append(made: Network, item: Made, source: str, random: Random) -> None:
    """Add the node, if onnxruntime can compute it and it makes few numbers."""
    constants: dict[str, np.ndarray] = {}
    inputs = [source]
    for other in item.others:
        if isinstance(other, str):
            inputs.append(random.choice(list(made.values)) if other else "")
        else:
            name = f"c{len(made.constants) + len(constants)}"
            constants[name] = np.asarray(other)
            inputs.append(name)
    first = len(made.values)
    node = helper.make_node(item.op, inputs, [f"v{first + place}" for place in range(item.outputs)], **item.attributes)
    given = {name: made.values[name] for name in inputs if name in made.values}
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    single = _model([node], [_info(name, value) for name, value in given.items()], outputs, constants)
    try:
        results = onnxruntime_session(single.SerializeToString()).run(None, given)
    except Exception:
        return
    if all(0 < value.size <= MOST_ELEMENTS and value.dtype == np.float32 for value in results):
        made.nodes.append(node)
        made.constants.update(constants)
        made.values.update(zip(node.output, results, strict=True))


def _info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _model(nodes: list[NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto],
           constants: dict[str, np.ndarray]) -> ModelProto:
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "network", inputs, outputs, weights),
                             opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
