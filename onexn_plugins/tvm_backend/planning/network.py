"""A network before it is built: read from a file or a torch module, simplified, planned and fused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto
from torch import nn

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.export import onnx_bytes, read_pattern
from onexn_plugins.pattern import check_block_size
from onexn_plugins.tvm_backend.planning.choices import Choices
from onexn_plugins.tvm_backend.planning.fusion import KernelCall, fuse
from onexn_plugins.tvm_backend.planning.layer import Layer
from onexn_plugins.tvm_backend.planning.plan import Planner
from onexn_plugins.tvm_backend.processors import Target, vector_unit
from onexn_plugins.tvm_backend.reading.canonical import canonicalise
from onexn_plugins.tvm_backend.reading.checks import check_nodes
from onexn_plugins.tvm_backend.reading.folding import fold_layers
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, build_graph
from onexn_plugins.tvm_backend.reading.onnx_model import EXPORT_AGAIN, load_onnx_model, parse_onnx_model
from onexn_plugins.tvm_backend.reading.sinking import sink_reshapes

# How messages name a network that came without a file; export_onnx's block size for layers that carry no mask.
IN_MEMORY, UNMASKED_BLOCK_SIZE = "model", 4


@dataclass(frozen=True)
class Network:
    """A planned network.

    Attributes:
        name: how messages name it.
        graph: simplified.
        order: what computes it.
        layers: what became of every Conv and Linear layer.
    """

    name: str
    graph: Graph
    order: list[Node | KernelCall]
    layers: list[Layer]


def plan_file(
    onnx_path: str | os.PathLike[str], processor: Target, block_size: int | None = None, choices: Choices | None = None,
    threads: int = 1,
) -> Network:
    """Plan an ONNX file, for compile_model."""
    _check_block_size(block_size)
    if not isinstance(onnx_path, (str, os.PathLike)):
        raise OneXNError("onnx_path", f"must be a path, got {type(onnx_path).__name__}",
                         "Give a torch module to compile_module, or write it with export_onnx and give that file")
    with blamed_on(str(onnx_path)):
        return _plan(load_onnx_model(onnx_path), str(onnx_path), processor, block_size, choices, threads)


def plan_module(
    model: nn.Module, example_inputs: Any, processor: Target, block_size: int | None = None,
    choices: Choices | None = None, threads: int = 1,
) -> Network:
    """Plan a torch module, for compile_module."""
    _check_block_size(block_size)
    content = onnx_bytes(model, example_inputs, block_size=block_size or UNMASKED_BLOCK_SIZE)
    with blamed_on(IN_MEMORY):
        return _plan(parse_onnx_model(content, Path(IN_MEMORY)), IN_MEMORY, processor, block_size, choices, threads)


@contextmanager
def blamed_on(name: str) -> Iterator[None]:
    """Errors that no check foresaw name the network, and keep their cause."""
    try:
        yield
    except OneXNError:
        raise
    except Exception as error:
        raise OneXNError(name, f"cannot be compiled: {first_line(error)}",
                         "Report the model; simpler layers or another target may do until then") from error


def _plan(
    model: ModelProto, name: str, processor: Target, block_size: int | None, choices: Choices | None, threads: int
) -> Network:
    try:
        recorded = read_pattern(model)
    except ValueError as error:
        raise OneXNError(name, "its recorded pattern is not readable", EXPORT_AGAIN) from error
    graph = build_graph(model)
    check_nodes(graph)
    canonicalise(graph)
    sink_reshapes(graph)
    fold_layers(graph)
    planner = Planner(vector_unit(processor, threads), block_size, recorded if isinstance(recorded, dict) else {})
    return Network(name, graph, *fuse(graph, planner, choices))


def _check_block_size(block_size: int | None) -> None:
    if block_size is not None:
        check_block_size(block_size)
