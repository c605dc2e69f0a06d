"""The tests of onnx.backend.test that our backend could be asked: float32 tensors, with integers and booleans beside.

The package's tests give every operand as an input, also a shape, an axis or a kernel, which exporters write as
constants. So each test is asked twice where it is refused: as it is, and with constants for all but the first input.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_node_model_tests

TYPES = {TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL}


@dataclass(frozen=True)
class Case:
    """One test.

    Attributes:
        name: the package's.
        operator: what it tests.
        model: with every operand as an input.
        data: inputs and expected outputs.
        rtol, atol: how close the outputs have to be.
    """

    name: str
    operator: str
    model: ModelProto
    data: list[tuple[list[np.ndarray], list[np.ndarray]]]
    rtol: float
    atol: float

    def forms(self) -> Iterator[tuple[ModelProto, list[tuple[list[np.ndarray], list[np.ndarray]]]]]:
        """Model and data as they are, then with constants for all inputs but the first."""
        yield self.model, self.data
        for inputs, outputs in self.data if len(self.model.graph.input) > 1 else ():
            model = ModelProto()
            model.CopyFrom(self.model)
            others = list(model.graph.input)[1:]
            del model.graph.input[1:]
            model.graph.initializer.extend(numpy_helper.from_array(value, item.name)
                                           for item, value in zip(others, inputs[1:], strict=True))
            yield model, [(inputs[:1], outputs)]


@cache
def cases() -> list[Case]:
    """All of them, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_node_model_tests()
    return sorted((Case(test.name, _operator(test.name, test.model), test.model, list(test.data_sets), test.rtol,
                        test.atol) for test in found if _is_ours(test.model)), key=lambda case: case.name)


def _is_ours(model: ModelProto) -> bool:
    items = [*model.graph.input, *model.graph.output]
    types = {item.type.tensor_type.elem_type for item in items if item.type.WhichOneof("value") == "tensor_type"}
    tensors = all(item.type.WhichOneof("value") == "tensor_type" for item in items)
    nodes = chain(model.graph.node, *(function.node for function in model.functions))
    standard = all(node.domain in ("", "ai.onnx") for node in nodes)
    return tensors and standard and TensorProto.FLOAT in types and types <= TYPES


def _operator(name: str, model: ModelProto) -> str:
    """The operator under test; expanded tests hold its function body."""
    return model.graph.node[0].op_type if len(model.graph.node) == 1 else name.removeprefix("test_").split("_")[0]
