"""What the demo found, as a report. Only words live here; every number comes in rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.cells import value
from benchmarks.demo import three_ways
from benchmarks.demo.efficientnet import EfficientNet
from benchmarks.demo.settings import BLOCK_SIZE, FULL, Settings
from benchmarks.demo.small import SmallNetwork
from onexn_plugins.report import Column, Highlight, Page, Plot, Section, Table
from onexn_plugins.report.cells import Cell, number

Row = Mapping[str, Cell]

EFFICIENTNET_COLUMNS = (
    Column("name", "EfficientNet-Lite0"),
    Column("retained_before", "L1 norm kept, channels as they were", "percent"),
    Column("retained_after", "L1 norm kept, channels rearranged", "percent"),
    Column("proof_error", "Proof: rearranged against original", "scientific"),
    Column("same_masks", "Layers masked, NNI = torch-pruning bit for bit", "count"),
    Column("blocks", "Blocks that are zero", "percent"),
    Column("weights", "Weights that are zero (prunable layers)", "percent"),
    Column("macs", "Multiply-accumulates", "millions"),
    Column("sparse_layers", "Layers compiled sparse"),
    Column("host_difference", "This machine against torch", "scientific"),
    Column("arm_difference", "Cortex-A72 (emulated) against torch", "scientific"),
    Column("arm_bytes", "Cortex-A72 library, cross-compiled", "megabytes"),
    Column("onnx_bytes", "ONNX file", "megabytes"),
    Column("host_bytes", "Compiled file", "megabytes"),
    Column("onnxruntime_ms", "Latency, ONNX Runtime, dense network", "milliseconds"),
    Column("ours_ms", "Latency, compiled by this package", "milliseconds"),
    Column("speedup", "Faster than ONNX Runtime", "times"),
)
PHOTO_COLUMNS = (
    Column("top1", "Top-1 on photos, not fine-tuned", "percent"),
)
DIGITS_COLUMNS = (
    Column("way", "Pruned"),
    Column("ratio", "Removed", "ratio"),
    Column("accuracy", "Accuracy", "percent"),
    Column("macs", "MACs", "millions"),
    Column("onnxruntime_ms", "ONNX Runtime", "milliseconds"),
    Column("ours_ms", "This package", "milliseconds"),
    Column("speedup", "Speed-up", "times"),
    Column("best_ms", "Faster of the two", "milliseconds"),
)


def build(settings: Settings, record: Mapping[str, Any], large: EfficientNet, small: SmallNetwork) -> Page:
    """The report of a demo whose stages all passed."""
    return Page(
        "1×N block pruning, end to end",
        "A real ImageNet network is rearranged, pruned through torch-pruning and through NNI, exported, compiled by "
        "TVM and timed; a small one is trained, pruned three ways and scored on digits it never saw."
        + ("" if settings == FULL else " This was a fast run at tiny sizes, as the tests make it: its latencies and "
                                       "accuracies mean nothing."),
        (_efficientnet(settings, large), _digits(settings, small)),
        _highlights(large.rows),
        record,
    )


def _highlights(rows: Sequence[Row]) -> tuple[Highlight, ...]:
    last = rows[-1]
    difference = _largest(rows, "host_difference")
    return (
        Highlight(last["speedup"], "times", f"faster than dense ONNX Runtime, {last['name']}, one thread"),
        Highlight(last["same_masks"], "count", "layers masked, bit for bit the same through torch-pruning and NNI"),
        Highlight(_largest(rows[1:], "proof_error"), "scientific",
                  "largest difference that moving the channels made, in float64"),
        Highlight(difference, "scientific", "largest difference from torch, as a share of the output's scale"),
    )


def _largest(rows: Sequence[Row], key: str) -> float:
    return max(value(row[key]) for row in rows)


def _efficientnet(settings: Settings, network: EfficientNet) -> Section:
    rows = network.rows
    columns = EFFICIENTNET_COLUMNS + (PHOTO_COLUMNS if network.photo_note else ())
    shown = tuple(column for column in columns if any(row.get(column.key) is not None for row in rows))
    return Section(
        "EfficientNet-Lite0 with its ImageNet weights",
        (f"One column per network, input {settings.resolution}×{settings.resolution}, batch 1. Blocks are "
         f"{BLOCK_SIZE} output channels by one input channel by all kernel taps; every convolution is pruned but "
         "the stem and the depthwise ones. The pruned networks are not fine-tuned here: speed, size and exactness "
         "do not depend on the values of the weights, accuracy does.",),
        Table(shown, tuple(rows), transposed=True),
        (Plot("bars", "Latency of one image", ("ours_ms", "onnxruntime_ms"),
              caption="Shorter is better. One thread; bars are medians, lines reach from the 10th to the 90th "
                      "percentile."),
         Plot("bars", "L1 norm kept by the blocks that stay", ("retained_before", "retained_after"),
              caption="Longer is better. Rearranging moves channels so that strong kernels share blocks; it costs "
                      "nothing at run time. Kept L1 is a proxy for accuracy, not accuracy.")),
        (f"Latencies: {settings.rounds} interleaved rounds (A B C, A B C, …) of three timed calls each after one "
         "untimed; median and 10th to 90th percentile. “Faster” is the median of the rounds’ own ratios, which "
         "holds better than either latency where a machine is shared or changes its clock.",
         "Differences are the largest over the output, divided by the output’s largest value; the input is normal "
         "noise, for which each kernel does the same work as for a photo.",
         network.arm_note,
         "The compiled file holds code and encoded weights; the ONNX file stores every zero.",
         *([network.photo_note] if network.photo_note else [])),
    )


def _digits(settings: Settings, network: SmallNetwork) -> Section:
    rows, held_out = network.rows, len(network.digits.held_out_labels)
    margin = 100 * _margin(held_out, number(rows[0]["accuracy"]) or 0.0)
    seeds = f"{settings.seeds} seeds" if settings.seeds > 1 else "one seed"
    return Section(
        "Accuracy beside latency, three ways to prune",
        (f"A small depthwise-separable network learns to read real handwritten digits (UCI, from scikit-learn). It "
         f"is pruned as {three_ways.BLOCKS} (this package), as single weights (NNI’s LevelPruner) and by whole "
         "filters (torch-pruning’s MagnitudePruner), then fine-tuned: the same epochs, learning rate and order of "
         "images for all, the dense one too. All three ways need equally many multiply-accumulates.",),
        Table(DIGITS_COLUMNS, tuple(rows)),
        (Plot("points", "Accuracy against latency", ("accuracy",), "best_ms", "way", "ratio",
              caption="Up and left is better. Each network in the faster of the two runtimes; lines reach from the "
                      "worst to the best seed, and over the 10th to 90th percentile of latency."),
         Plot("bars", "Latency in either runtime", ("ours_ms", "onnxruntime_ms"), mark="ratio",
              caption="Shorter is better. Equal work on paper; how much of the saving a runtime turns into time is "
                      "the question.")),
        ("MACs: multiply-accumulates of one image. Speed-up: the network in the faster of the two runtimes against the "
         "dense one in ONNX Runtime.",
         f"Accuracy: mean over {seeds} on {held_out:,} held-out digits, and worst to best seed. With so few digits "
         f"one network’s accuracy is known to about ±{margin:.1f} points (95 %): smaller "
         "differences say nothing, and digits are an easy task.",
         "“Removed” counts the weights of the prunable layers. For filters it is the sparsity whose "
         "multiply-accumulates they do not exceed; their widths are multiples of "
         f"{three_ways.ROUND_TO}, which suits dense runtimes, and the stem and the depthwise layers thin out too.",
         "Latency: first seed’s networks, batch 1, one thread, interleaved as above. These networks run in "
         "fractions of a millisecond, of which the call from Python is a part."),
    )


def _margin(count: int, rate: float) -> float:
    """Half the width of a 95 % interval for a rate measured on `count` cases (normal approximation)."""
    return 1.96 * (rate * (1 - rate) / count) ** 0.5
