"""Which kernel serves a layer: the families in the order in which they are asked. This is the map of all kernels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onexn_plugins.tvm_backend.kernels.attention.attention import attention, why_not_attention
from onexn_plugins.tvm_backend.kernels.attention.matmul import matmul, why_not_matmul
from onexn_plugins.tvm_backend.kernels.attention.rows import (
    instance_norm,
    layer_norm,
    softmax,
    why_not_instance_norm,
    why_not_layer_norm,
    why_not_softmax,
)
from onexn_plugins.tvm_backend.kernels.attention.transpose import transpose, why_not_transpose
from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import depthwise, why_not_depthwise
from onexn_plugins.tvm_backend.kernels.channelwise.depthwise_frames import depthwise_frames, why_not_depthwise_frames
from onexn_plugins.tvm_backend.kernels.channelwise.pooling import (
    global_average_pool,
    pool,
    why_not_mean,
    why_not_pool,
)
from onexn_plugins.tvm_backend.kernels.conv.frames import conv_frames, why_not_frames
from onexn_plugins.tvm_backend.kernels.conv.packed import packed, why_not_packed
from onexn_plugins.tvm_backend.kernels.conv.pointwise import pointwise, why_not_pointwise
from onexn_plugins.tvm_backend.kernels.conv.sliced import sliced, why_not_sliced
from onexn_plugins.tvm_backend.kernels.conv.spatial import spatial, why_not_spatial
from onexn_plugins.tvm_backend.kernels.conv.tap_by_tap import tap_by_tap, why_not_tap_by_tap
from onexn_plugins.tvm_backend.kernels.family import (
    ATTENTION,
    CONV,
    CONV3D,
    DEPTHWISE,
    DEPTHWISE3D,
    INSTANCE_NORM,
    LAYER_NORM,
    LINEAR,
    MATMUL,
    MEAN,
    PAIR,
    POOL,
    PROJECTED,
    SOFTMAX,
    TRANSPOSE,
    TRANSPOSED,
    Family,
)
from onexn_plugins.tvm_backend.kernels.linear.over_channels import over_channels, why_not_over_channels
from onexn_plugins.tvm_backend.kernels.linear.over_rows import (
    dense_on_rows,
    filled,
    fills_vectors,
    over_rows,
    why_not_over_rows,
)
from onexn_plugins.tvm_backend.kernels.pairs.copied import copied, why_not_copied
from onexn_plugins.tvm_backend.kernels.pairs.laid_out import laid_out, why_not_laid_out
from onexn_plugins.tvm_backend.kernels.pairs.read_unpadded import read_unpadded, why_not_read_unpadded
from onexn_plugins.tvm_backend.kernels.pairs.stem import stem, stem_method, why_not_stem
from onexn_plugins.tvm_backend.kernels.pairs.written_in_place import why_not_written_in_place, written_in_place
from onexn_plugins.tvm_backend.kernels.problem import (
    Conv,
    Kernel,
    Linear,
    Unsupported,
    Vectors,
    as_linear,
    why_not_indexed,
)
from onexn_plugins.tvm_backend.kernels.request import Request, Stage
from onexn_plugins.tvm_backend.kernels.transposed.kernel import transposed, why_not_transposed
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.kernels.winograd.kernel import why_not_winograd, winograd, winograd_method

# The first family that fits serves a request, so the one that gains the most comes first. Of those that take
# everything of a chain there is one, the last.
FAMILIES: tuple[Family, ...] = (
    Family("stem", "strided 3×3 stem by Winograd's algorithm, then the depthwise layer, band by band",
           (PAIR, PROJECTED), why_not_stem, stem, stem_method),
    Family("pair, read unpadded", "1×1, then the depthwise layer on hidden rows as they lie",
           (PAIR,), why_not_read_unpadded, read_unpadded),
    Family("pair, laid out", "1×1 on pixels laid out as the strided depthwise layer reads them",
           (PAIR,), why_not_laid_out, laid_out),
    Family("pair, written in place", "hidden rows written straight into the depthwise layer's window",
           (PAIR, PROJECTED), why_not_written_in_place, written_in_place),
    Family("pair, copied", "hidden channels copied into the depthwise layer's window",
           (PAIR,), why_not_copied, copied),
    Family("linear over rows", "vectors over the rows of x, which are turned into columns",
           (LINEAR, CONV), why_not_over_rows, over_rows),
    Family("linear", "vectors over the channels of a block",
           (LINEAR, CONV), why_not_over_channels, over_channels),
    Family("winograd", "k×k with few multiplications: F(2×2) and F(4×4), any stride",
           (CONV,), why_not_winograd, winograd, winograd_method),
    Family("conv k×k, tap by tap", "dilated k×k, each tap over the outputs for which it lies on the image",
           (CONV,), why_not_tap_by_tap, tap_by_tap),
    Family("conv 1×1, packed", "1×1 of any stride on copies of each tile's pixels, in slices of channels",
           (CONV,), why_not_packed, packed),
    Family("conv k×k, sliced", "k×k in slices of channels that the first cache holds",
           (CONV,), why_not_sliced, sliced),
    Family("conv 1×1", "1×1 of stride 1 on the pixels where they are",
           (CONV,), why_not_pointwise, pointwise),
    Family("conv k×k", "k×k of any stride, padding, dilation and groups on padded bands",
           (CONV,), why_not_spatial, spatial),
    Family("conv k×k×k", "3-d of any stride, padding, dilation and groups, frame by frame on padded bands",
           (CONV3D,), why_not_frames, conv_frames),
    Family("transposed", "each phase of the output from the taps that fall on it, then interleaved",
           (TRANSPOSED,), why_not_transposed, transposed),
    Family("depthwise", "one filter per channel, in padded scratch",
           (DEPTHWISE,), why_not_depthwise, depthwise),
    Family("depthwise k×k×k", "one 3-d filter per channel, frame by frame",
           (DEPTHWISE3D,), why_not_depthwise_frames, depthwise_frames),
    Family("pool", "maximum or average over windows",
           (POOL,), why_not_pool, pool),
    Family("mean", "the mean of every channel",
           (MEAN,), why_not_mean, global_average_pool),
    Family("attention", "products, softmax and products for some rows at a time, on packed keys and values",
           (ATTENTION,), why_not_attention, attention),
    Family("matmul", "products of two activations, wherever their rows and columns lie",
           (MATMUL,), why_not_matmul, matmul),
    Family("softmax", "along the last axis, row by row",
           (SOFTMAX,), why_not_softmax, softmax),
    Family("layer norm", "row by row",
           (LAYER_NORM,), why_not_layer_norm, layer_norm),
    Family("instance norm", "channel by channel of an image, with what follows it",
           (INSTANCE_NORM,), why_not_instance_norm, instance_norm),
    Family("transpose", "axes in any order: runs copied, blocks turned in registers",
           (TRANSPOSE,), why_not_transpose, transpose),
)
_DENSE_LINEAR_BLOCK = 16


@dataclass(frozen=True)
class Chosen:
    """The family that serves a request, and why those before it do not: (family, reason)."""

    family: Family
    refused: tuple[tuple[str, str], ...] = ()


def choose(request: Request, families: Iterable[Family] = FAMILIES) -> Chosen:
    """The first family that fits; nothing is encoded or emitted.

    Raises:
        Unsupported: none does.
    """
    for stage in request.stages:
        if (reason := _why_not_computed(stage)) is not None:
            raise Unsupported(reason)
    refused: list[tuple[str, str]] = []
    for family in families:
        if request.chain not in family.chains:
            continue
        reason = family.fits(request)
        if reason is None:
            return Chosen(family, tuple(refused))
        refused.append((family.name, reason))
    raise Unsupported("; ".join(dict.fromkeys(reason for _, reason in refused)) or
                      f"no kernel computes {' + '.join(request.chain)} together")


def kernel_of(request: Request) -> Kernel:
    """The kernel of a request.

    Raises:
        Unsupported: there is none.
    """
    return choose(request).family.build(request)


def _why_not_computed(stage: Stage) -> str | None:
    """None where tensors are indexable and the arrays have the problem's shapes."""
    problem = stage.problem
    reason = why_not_indexed(problem.input_shape) or why_not_indexed(problem.output_shape)
    if reason or not isinstance(problem, (Conv, Linear)):
        return reason
    expected = problem.weight_shape
    if stage.array.shape != expected or stage.bias.shape != expected[:1]:
        return f"weight {stage.array.shape} and bias {stage.bias.shape} where {expected} and {expected[:1]} belong"
    return why_not_indexed(stage.array.shape)


def dense_block(problem: Conv | Linear, unit: VectorUnit) -> int:
    """Block size of a layer that has no blocks."""
    features = as_linear(problem)
    return unit.measured.dense_block if features is None or dense_on_rows(features, unit) else _DENSE_LINEAR_BLOCK


def sparse_vectors(problem: Conv | Linear, unit: VectorUnit) -> Vectors:
    """What the vectors of its kernel run over where blocks are skipped."""
    features = as_linear(problem)
    if features is None:
        return "pixels"
    return "rows" if fills_vectors(features, unit) else "channels"


def filled_lanes(problem: Conv | Linear, unit: VectorUnit) -> float:
    """Share of the lanes that rows fill where vectors run over them."""
    features = as_linear(problem)
    return 1.0 if features is None else filled(features, unit)


def kernel_map() -> list[tuple[str, str, str]]:
    """(family, chains, what it does) of every family in the order in which they are asked, for the documentation."""
    return [(family.name, ", ".join(" + ".join(chain) for chain in family.chains), family.summary)
            for family in FAMILIES]
