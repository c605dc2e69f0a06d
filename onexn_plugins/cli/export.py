"""`onexn export`: a torch model as ONNX with its pattern recorded."""

from __future__ import annotations

import argparse
from pathlib import Path

from onexn_plugins.cli.common import Result, add_block_size, add_model, example_input, in_float32, read_model, stage
from onexn_plugins.export import export_onnx
from onexn_plugins.measurement import measure

HELP = "Write a model as ONNX, with its 1×N pattern recorded and checked."
EXAMPLE = "onexn export mobilenet_v2 --weights pruned.safetensors --output pruned.onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_block_size(parser)
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE", help="the ONNX file to write")


def run(arguments: argparse.Namespace) -> Result:
    model = in_float32(read_model(arguments))
    with stage(arguments, f"exporting {arguments.model}"):
        path = export_onnx(model, example_input(model, arguments), arguments.output, block_size=arguments.block_size)
    report = measure(model, arguments.block_size)
    sparse = sum(layer.block_sparse for layer in report.layers)
    size = Path(path).stat().st_size
    values = {"model": arguments.model, "output": path, "bytes": size, "block_sparse_layers": sparse,
              "sparsity": report.sparsity._asdict()}
    return Result(values, f"{path}: {size / 1e6:.1f} MB, {sparse} of {len(report.layers)} layers block-sparse, "
                          f"equal to torch within 1e-4 of its scale")
