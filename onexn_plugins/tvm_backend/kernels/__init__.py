"""1×N block-sparse CPU kernels as TVM PrimFuncs: one family per file on a common vector.py."""

from __future__ import annotations

from onexn_plugins.tvm_backend.kernels.problem import (
    Conv,
    Epilogue,
    GlobalPool,
    Kernel,
    Linear,
    Pool,
    Tile,
    Unsupported,
    VectorUnit,
)

__all__ = ["Conv", "Epilogue", "GlobalPool", "Kernel", "Linear", "Pool", "Tile", "Unsupported", "VectorUnit"]
