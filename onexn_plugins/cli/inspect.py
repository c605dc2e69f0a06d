"""`onexn inspect`: what every layer of a torch model or an ONNX file holds."""

from __future__ import annotations

import argparse
from typing import Any

from onexn_plugins.cli.common import (
    Result,
    add_block_size,
    add_model,
    add_strict,
    add_tuning,
    example_input,
    is_onnx,
    read_model,
)
from onexn_plugins.measurement import LayerReport, ModelReport, measure
from onexn_plugins.report import Column, Table, to_text
from onexn_plugins.report.cells import Cell

HELP = "Show per layer the blocks kept; for an ONNX file or with --target, how it would be computed, and why."
EXAMPLE = "onexn inspect pruned.onnx --target cortex-a72"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_block_size(parser)
    parser.add_argument("--target", metavar="NAME", help="say for this processor which layers become sparse, and the "
                        "speed-up to expect: host (taken for ONNX files), cortex-a7, cortex-a72, ...")
    parser.add_argument("--why", action="store_true", help="also say per layer which kernel computes it, and why not "
                        "each fusion and kernel family that was asked before")
    add_tuning(parser)
    add_strict(parser)


def run(arguments: argparse.Namespace) -> Result:
    if is_onnx(arguments.model):
        from onexn_plugins.tvm_backend import describe_onnx

        found = describe_onnx(arguments.model, target=arguments.target or "host", tuning=arguments.tuning,
                              input_shapes=arguments.input_shapes, strict=arguments.strict)
        return Result({"model": arguments.model, **found}, _plan(found, arguments.why))
    if arguments.why and arguments.target is None:
        arguments.target = "host"
    model = read_model(arguments)
    image = example_input(model, arguments)
    report = measure(model, arguments.block_size, image)
    values = {"model": arguments.model, **report.to_dict()}
    lines = [layer_table(report), *_summary(report)]
    if arguments.target is not None:
        from onexn_plugins.tvm_backend import describe_module

        found = describe_module(model, image, target=arguments.target, tuning=arguments.tuning,
                                strict=arguments.strict)
        values |= {"plan": found["layers"], "others": found["others"]}
        lines += ["", f"compiled for {arguments.target}:", _plan(found, arguments.why)]
    return Result(values, "\n".join(lines))


def _summary(report: ModelReport) -> list[str]:
    return [f"removed from prunable layers: {report.sparsity.blocks:.1%} of the blocks, "
            f"{report.sparsity.weights:.1%} of the weights",
            f"multiply-accumulates: {report.macs:,} of {report.dense_macs:,}"]


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


def _plan(found: dict[str, Any], why: bool) -> str:
    layers, others = found["layers"], found["others"]
    return "\n\n".join([plan_table(layers), *([others_table(others)] if others else []),
                        *([reasons(layers)] if why else [])])


def others_table(others: list[dict[str, Any]]) -> str:
    """What runs without a kernel of ours, by operator, the slowest first: expected times, by order of magnitude."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for item in others:
        kinds.setdefault(item["operator"], []).append(item)
    rows: list[dict[str, Cell]] = [
        {"operator": kind, "count": len(items), "names": ", ".join(item["name"] for item in items[:3]),
         **{key: sum(item[key] for item in items) for key in ("macs", "milliseconds", "onnxruntime_milliseconds")}}
        for kind, items in kinds.items()]
    rows.sort(key=lambda row: -float(str(row["milliseconds"])))
    columns = (Column("operator", "without a kernel of ours"), Column("count", "of them", "count"),
               Column("macs", "multiply-adds", "count"), Column("milliseconds", "expected", "milliseconds"),
               Column("onnxruntime_milliseconds", "in onnxruntime", "milliseconds"), Column("names", "such as"))
    return to_text(Table(columns, tuple(rows)))


def reasons(layers: list[dict[str, Any]]) -> str:
    """Per layer the kernel family that computes it, and why not those before it."""
    lines = []
    for layer in layers:
        lines.append(f"{layer['name']}: {layer['family'] or 'left to TVM'}")
        lines += [f"    not {what}: {why}" for what, why in layer["refused"]]
    return "\n".join(lines)


def plan_table(layers: list[dict[str, Any]]) -> str:
    """What compiling would make of every layer."""
    columns = (Column("name", "layer"), Column("operator", "operator"), Column("shape", "weight"),
               Column("block_size", "N"), Column("kept", "computed", "percent"),
               Column("expected_speedup", "expected speed-up", "times"), Column("reason", "sparse or dense"))
    rows = tuple({**layer, "shape": "×".join(map(str, layer["shape"])),
                  "reason": f"{'sparse' if layer['sparse'] else 'dense'}: {layer['reason']}"} for layer in layers)
    return to_text(Table(columns, rows))
