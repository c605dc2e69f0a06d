"""Rewrites a LiteRT network so that XNNPACK may use its sparse kernels. Runs in LiteRT's own Python.

    python sparse_litert.py DENSE.tflite SPARSE.tflite

What XNNPACK wants, found by reading and trying:
- One constant that is stored sparse and read through DENSIFY; zeros in an ordinary constant ask for nothing.
- Layers that it can compute channel by channel, joined to a cluster: 1×1 convolutions, 3×3 and 5×5 depthwise ones with
  symmetric padding, a first 3×3 convolution of stride 2, sums, a mean at the end.
- More than 2/3 zeros among all weights of the cluster's 1×1 and fully connected layers. A dense classifier would drag
  the share below that, so a RESHAPE between the mean and the classifier keeps it out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

OPERATOR = schema.BuiltinOperator
# Largest difference between the two networks' outputs that is rounding, as a share of the output's scale.
DIFFERENCE_BAR = 1e-4


class Network:
    """A LiteRT model taken apart: what it holds, and how to add to it."""

    def __init__(self, path: Path) -> None:
        self._model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        self.graph = self._model.subgraphs[0]

    def save(self, path: Path) -> None:
        builder = flatbuffers.Builder(0)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(builder.Output())

    def kind(self, operator: Any) -> int:
        return self._builtin(self._model.operatorCodes[operator.opcodeIndex])

    def constant(self, tensor: Any) -> np.ndarray:
        """A float32 constant's values."""
        data = np.asarray(self._model.buffers[tensor.buffer].data, np.uint8)
        return data.view(np.float32).reshape(tensor.shape)

    def operator(self, kind: int, options: str, inputs: list[int], output: int) -> Any:
        """A new operator, not yet placed; `options` is the schema's word for it."""
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self._code(kind), inputs, [output]
        made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        made.builtinOptions = getattr(schema, f"{options}T")()
        return made

    def tensor(self, name: str, shape: list[int], kind: int, values: np.ndarray | None = None) -> int:
        """The number of a new tensor: a constant, or what an operator makes where there are no values."""
        made = schema.TensorT()
        made.name, made.shape, made.type, made.hasRank, made.buffer = name.encode(), shape, kind, True, 0
        if values is not None:
            self._model.buffers.append(schema.BufferT())
            self._model.buffers[-1].data = np.frombuffer(values.tobytes(), np.uint8)
            made.buffer = len(self._model.buffers) - 1
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def _code(self, kind: int) -> int:
        for index, code in enumerate(self._model.operatorCodes):
            if self._builtin(code) == kind:
                return index
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = 1
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1

    @staticmethod
    def _builtin(code: Any) -> int:
        return max(code.builtinCode, code.deprecatedBuiltinCode)


def make_sparse(source: Path, target: Path) -> float:
    """Store the 1×1 convolutions' weights sparse and keep the classifier apart: the share of zeros among them."""
    network = Network(source)
    operators, zeros, weights = [], 0, 0
    for operator in network.graph.operators:
        if network.kind(operator) == OPERATOR.CONV_2D:
            weight = network.graph.tensors[operator.inputs[1]]
            if list(weight.shape[1:3]) == [1, 1]:
                values = network.constant(weight)
                zeros, weights = zeros + int((values == 0).sum()), weights + values.size
                operators.append(_densify(network, int(operator.inputs[1]), values))
        if network.kind(operator) == OPERATOR.FULLY_CONNECTED and network.kind(operators[-1]) == OPERATOR.MEAN:
            operators.append(_reshape_mean(network, operators[-1], operator))
        operators.append(operator)
    network.graph.operators = operators
    network.save(target)
    return zeros / weights


def _densify(network: Network, number: int, values: np.ndarray) -> Any:
    """The operator that makes a weight, until now a constant, from a sparse constant."""
    dense = network.graph.tensors[number]
    kept = values != 0
    sparse = network.tensor("sparse_weight", list(values.shape), schema.TensorType.FLOAT32, values[kept])
    network.graph.tensors[sparse].sparsity = _pattern(kept)
    dense.buffer = 0
    return network.operator(OPERATOR.DENSIFY, "DensifyOptions", [sparse], number)


def _pattern(kept: np.ndarray) -> Any:
    """Compressed rows: [out, 1, 1, in] with the last dimension sparse."""
    pattern = schema.SparsityParametersT()
    pattern.traversalOrder, pattern.dimMetadata = list(range(kept.ndim)), []
    for size in kept.shape[:-1]:
        pattern.dimMetadata.append(schema.DimensionMetadataT())
        pattern.dimMetadata[-1].format, pattern.dimMetadata[-1].denseSize = schema.DimensionType.DENSE, size
    last = schema.DimensionMetadataT()
    rows = kept.reshape(-1, kept.shape[-1])
    last.format = schema.DimensionType.SPARSE_CSR
    last.arraySegmentsType = last.arrayIndicesType = schema.SparseIndexVector.Int32Vector
    last.arraySegments, last.arrayIndices = schema.Int32VectorT(), schema.Int32VectorT()
    last.arraySegments.values = np.concatenate([[0], rows.sum(1).cumsum()]).astype(np.int32)
    last.arrayIndices.values = np.nonzero(rows)[1].astype(np.int32)
    pattern.dimMetadata.append(last)
    return pattern


def _reshape_mean(network: Network, mean: Any, classifier: Any) -> Any:
    """The mean keeps its dimensions, and the operator returned drops them for the classifier."""
    number = int(mean.outputs[0])
    pooled = network.graph.tensors[number]
    shape = [int(size) for size in pooled.shape]
    batch, channels = shape[0], shape[-1]
    mean.builtinOptions.keepDims, pooled.shape, pooled.shapeSignature = True, [batch, 1, 1, channels], None
    flat_shape = np.array([batch, channels], np.int32)
    wanted = network.tensor("flat_shape", [2], schema.TensorType.INT32, flat_shape)
    flat = network.tensor("flat", [batch, channels], schema.TensorType.FLOAT32)
    classifier.inputs = [flat, *(int(index) for index in classifier.inputs[1:])]
    reshape = network.operator(OPERATOR.RESHAPE, "ReshapeOptions", [number, wanted], flat)
    reshape.builtinOptions.newShape = flat_shape
    return reshape


def _output(path: Path) -> np.ndarray:
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    image = np.random.default_rng(0).standard_normal(given["shape"], np.float32)
    interpreter.set_tensor(given["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


if __name__ == "__main__":
    before, after = Path(sys.argv[1]), Path(sys.argv[2])
    share = make_sparse(before, after)
    expected, found = _output(before), _output(after)
    difference = np.abs(expected - found).max() / np.abs(expected).max()
    if not difference <= DIFFERENCE_BAR:
        sys.exit(f"the sparse network's output differs by {difference:.1e} of the scale")
    print(f"{share:.4f} of the 1×1 weights are zeros")
