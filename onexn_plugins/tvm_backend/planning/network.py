"""A network before it is built: read from a file or a torch module, simplified, planned and fused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import clear_frames
from typing import Any

from onnx import ModelProto
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.export import onnx_bytes, read_pattern
from onexn_plugins.pattern import check_block_size
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.planning.choices import Choices
from onexn_plugins.tvm_backend.planning.fusion import KernelCall, fuse
from onexn_plugins.tvm_backend.planning.layer import Layer
from onexn_plugins.tvm_backend.planning.plan import Planner
from onexn_plugins.tvm_backend.processors import Target, vector_unit
from onexn_plugins.tvm_backend.reading.building import build_graph
from onexn_plugins.tvm_backend.reading.canonical import canonicalise
from onexn_plugins.tvm_backend.reading.checks import check_nodes
from onexn_plugins.tvm_backend.reading.folding import fold_layers
from onexn_plugins.tvm_backend.reading.graph import Graph, Node
from onexn_plugins.tvm_backend.reading.input_shapes import Shapes
from onexn_plugins.tvm_backend.reading.onnx_model import load_onnx_model, parse_onnx_model
from onexn_plugins.tvm_backend.reading.parting import part_concatenations
from onexn_plugins.tvm_backend.reading.sinking import sink_reshapes
from onexn_plugins.tvm_backend.reading.ways_out import EXPORT_AGAIN

# How messages name a network that came without a file; export_onnx's block size for layers that carry no mask.
IN_MEMORY, UNMASKED_BLOCK_SIZE = "model", 4


@dataclass(frozen=True)
class Network:
    """A planned network.

    Attributes:
        name: how messages name it.
        graph: simplified.
        order: what computes it.
        layers: what became of every convolution and linear layer.
        source: the file's path, or its content where it is in memory.
        names: of the values that the file's own nodes make.
    """

    name: str
    graph: Graph
    order: list[Node | KernelCall]
    layers: list[Layer]
    source: str | bytes
    names: frozenset[str]


def plan_file(
    onnx_path: str | os.PathLike[str], processor: Target, block_size: int | None = None, choices: Choices | None = None,
    threads: int = 1, input_shapes: Shapes | None = None, strict: bool = False,
) -> Network:
    """Plan an ONNX file, for compile_model."""
    _check_block_size(block_size)
    if not isinstance(onnx_path, (str, os.PathLike)):
        raise OneXNError("onnx_path", f"must be a path, got {type(onnx_path).__name__}",
                         "Give a torch module to compile_module, or write it with export_onnx and give that file")
    with blamed_on(str(onnx_path)):
        path = str(onnx_path)
        unit = vector_unit(processor, threads, strict)
        return _plan(load_onnx_model(path, input_shapes), path, path, unit, block_size, choices)


def plan_module(
    model: nn.Module, example_inputs: Any, processor: Target, block_size: int | None = None,
    choices: Choices | None = None, threads: int = 1, strict: bool = False,
) -> Network:
    """Plan a torch module, for compile_module."""
    _check_block_size(block_size)
    content = onnx_bytes(model, example_inputs, block_size=block_size or UNMASKED_BLOCK_SIZE)
    with blamed_on(IN_MEMORY):
        model_read = parse_onnx_model(content, Path(IN_MEMORY))
        return _plan(model_read, IN_MEMORY, content, vector_unit(processor, threads, strict), block_size, choices)


@contextmanager
def blamed_on(name: str) -> Iterator[None]:
    """Errors that no check foresaw name the network, and keep their cause."""
    try:
        yield
    except OneXNError as error:
        clear_frames(error.__traceback__)
        raise
    except Exception as error:
        clear_frames(error.__traceback__)  # what TVM was building ends here, with its complaint about that
        raise OneXNError(name, "cannot be compiled, for a reason that no check foresaw",
                         "Report the model with the traceback of this error; simpler layers or another target may do "
                         "until then") from error


def _plan(
    model: ModelProto, name: str, source: str | bytes, unit: VectorUnit, block_size: int | None,
    choices: Choices | None,
) -> Network:
    try:
        recorded = read_pattern(model)
    except ValueError as error:
        raise OneXNError(name, "its recorded pattern is not readable", EXPORT_AGAIN) from error
    names = frozenset(value for node in model.graph.node for value in node.output)
    graph = build_graph(model)
    check_nodes(graph)
    canonicalise(graph)
    part_concatenations(graph)
    sink_reshapes(graph)
    fold_layers(graph)
    planner = Planner(unit, block_size, recorded if isinstance(recorded, dict) else {})
    order, layers = fuse(graph, planner, choices)
    return Network(name, graph, order, layers, source, names)


def _check_block_size(block_size: int | None) -> None:
    if block_size is not None:
        check_block_size(block_size)
