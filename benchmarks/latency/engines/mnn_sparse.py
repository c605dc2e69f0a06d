"""MNN with its sparse kernels, told that zeros come in blocks of four output channels."""

from __future__ import annotations

from pathlib import Path

from benchmarks.latency.engines import mnn

REQUIREMENTS, PACKAGE = mnn.REQUIREMENTS, mnn.PACKAGE
SETTINGS = ("`--detectSparseSpeedUp` with a compression file that names blocks of 4 output channels, so that its "
            "4-wide kernels run instead of the unstructured ones; else as MNN.")
ENVIRONMENT = "mnn"
load = mnn.load
# MNN_compression.proto, encoded by hand:
# Pipeline{version: "1", algo{type: PRUNE, prune_params{type: SIMD_OC, simd_oc_pruner_params{oc_blocks: 4}}}}
BLOCKS_OF_FOUR = b"\x0a\x011" b"\x12\x0a\x08\x01\x1a\x06" b"\x08\x01\x1a\x02\x20\x04"


def prepare(onnx: Path, folder: Path) -> Path:
    blocks = folder / "blocks.bin"
    blocks.write_bytes(BLOCKS_OF_FOUR)
    return mnn.convert(onnx, folder / "network.mnn", "--detectSparseSpeedUp", "--compressionParamsFile", str(blocks))
