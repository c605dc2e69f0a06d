"""`onexn inspect`: what every layer of a torch model or an ONNX file holds."""

from __future__ import annotations

import argparse

from onexn_plugins.cli.common import (
    Result,
    add_block_size,
    add_model,
    add_tuning,
    example_input,
    is_onnx,
    read_model,
)
from onexn_plugins.measurement import LayerReport, ModelReport, measure
from onexn_plugins.report import Column, Table, to_text
from onexn_plugins.report.cells import Cell

HELP = "Show per layer the shape, the blocks kept and whether they are aligned."
EXAMPLE = "onexn inspect pruned.onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_block_size(parser)
    add_tuning(parser)


def run(arguments: argparse.Namespace) -> Result:
    if is_onnx(arguments.model):
        return _onnx(arguments)
    model = read_model(arguments)
    report = measure(model, arguments.block_size, example_input(arguments))
    text = "\n".join([layer_table(report), f"removed from prunable layers: {report.sparsity.blocks:.1%} of the blocks, "
                                           f"{report.sparsity.weights:.1%} of the weights",
                      f"multiply-accumulates: {report.macs:,} of {report.dense_macs:,}"])
    return Result({"model": arguments.model, **report.to_dict()}, text)


def layer_table(report: ModelReport) -> str:
    """One line per layer."""
    columns = (Column("name", "layer"), Column("shape", "weight"), Column("pattern", "pattern"),
               Column("kept", "blocks kept"), Column("blocks", "of"), Column("sparsity", "removed", "percent"))
    return to_text(Table(columns, tuple(_row(layer, report.block_size) for layer in report.layers)))


def _row(layer: LayerReport, block_size: int) -> dict[str, Cell]:
    dense = layer.kept == layer.blocks
    return {"name": layer.name, "shape": "×".join(map(str, layer.shape)),
            "pattern": f"1×{block_size}" if layer.block_sparse else "dense" if dense else "unaligned",
            "kept": layer.kept, "blocks": layer.blocks, "sparsity": layer.sparsity.weights}


def _onnx(arguments: argparse.Namespace) -> Result:
    from onexn_plugins.tvm_backend import inspect_onnx

    layers = inspect_onnx(arguments.model, tuning=arguments.tuning)
    columns = (Column("name", "layer"), Column("operator", "operator"), Column("shape", "weight"),
               Column("block_size", "N"), Column("kept", "kept", "percent"), Column("reason", "sparse or dense"))
    rows = tuple({**layer, "shape": "×".join(map(str, layer["shape"]))} for layer in layers)
    return Result({"model": arguments.model, "layers": layers}, to_text(Table(columns, rows)))
