"""`onexn compile`: an ONNX file as a library for the host or an ARM core."""

from __future__ import annotations

import argparse
from pathlib import Path

from onexn_plugins.cli.common import Result, add_onnx_shapes, add_strict, add_tuning, stage

HELP = "Compile an ONNX file for this machine or an ARM core."
EXAMPLE = "onexn compile pruned.onnx --target cortex-a72 --output pruned.onexn"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx", help="the file that `onexn export` or another exporter wrote")
    parser.add_argument("--target", default="host", help="host, cortex-a7, cortex-a53, cortex-a72, cortex-a76, ...")
    parser.add_argument("--threads", type=int, default=1, help="threads at run time (default 1)")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FOLDER", help="where to save the network")
    add_onnx_shapes(parser)
    add_tuning(parser)
    add_strict(parser)


def run(arguments: argparse.Namespace) -> Result:
    from onexn_plugins.tvm_backend import compile_model

    with stage(arguments, f"compiling {arguments.model} for {arguments.target}"):
        compiled = compile_model(arguments.model, target=arguments.target, threads=arguments.threads,
                                 tuning=arguments.tuning, input_shapes=arguments.input_shapes,
                                 strict=arguments.strict)
        compiled.save(arguments.output)
    layers = [layer.to_dict() for layer in compiled.layers]
    sparse = sum(layer["sparse"] for layer in layers)
    values = {"model": arguments.model, "target": arguments.target, "output": str(arguments.output),
              "bytes": sum(file.stat().st_size for file in arguments.output.iterdir()), "layers": layers}
    return Result(values, f"{arguments.output}: {values['bytes'] / 1e6:.1f} MB for {arguments.target}, "
                          f"{sparse} of {len(layers)} layers sparse")
