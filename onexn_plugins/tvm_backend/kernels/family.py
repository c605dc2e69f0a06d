"""A family of kernels: which chains of operators it computes, when it fits, and what it builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onexn_plugins.tvm_backend.kernels.problem import Kernel
from onexn_plugins.tvm_backend.kernels.request import Request

Chain = tuple[str, ...]
CONV, LINEAR, DEPTHWISE, POOL, MEAN = (("conv",), ("linear",), ("depthwise",), ("pool",), ("mean",))
TRANSPOSED = ("transposed",)
CONV3D, DEPTHWISE3D = ("conv3d",), ("depthwise3d",)
PAIR = ("conv", "depthwise")
PROJECTED = ("conv", "depthwise", "conv")
MATMUL, SOFTMAX, LAYER_NORM, TRANSPOSE = (("matmul",), ("softmax",), ("layer norm",), ("transpose",))
INSTANCE_NORM = ("instance norm",)
ATTENTION = ("matmul", "softmax", "matmul")


def _as_defined(_request: Request) -> str:
    return ""


@dataclass(frozen=True)
class Family:
    """One row of choose.FAMILIES.

    Attributes:
        name: how reports call it; its kernels' own names say more, such as "conv_3x3".
        summary: what it does, for the documentation.
        chains: the chains of stages it computes.
        fits: None, or why the request is better left to another family. It decides on everything that `build` needs,
            and emits nothing.
        build: the kernel of a request that fits.
        method: the algorithm in words; empty where sums are computed as they are defined.
    """

    name: str
    summary: str
    chains: tuple[Chain, ...]
    fits: Callable[[Request], str | None]
    build: Callable[[Request], Kernel]
    method: Callable[[Request], str] = _as_defined
