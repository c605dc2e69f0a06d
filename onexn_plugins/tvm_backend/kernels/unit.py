"""The vector unit of a core, as kernels see it."""

from __future__ import annotations

from dataclasses import dataclass

from onexn_plugins.tvm_backend.kernels.problem import Unsupported


@dataclass(frozen=True)
class VectorUnit:
    """The vector registers of a core.

    Attributes:
        lanes: float32 per register, a power of two: AVX-512 16, AVX2 8, SSE and NEON 4.
        registers: AVX-512 and NEON on aarch64 32, others 16.
        fused_weights: the multiply takes a lane of a register as its factor (NEON), so weights are loaded as vectors;
            x86 broadcasts them from memory instead.
        threads: cores that share every kernel large enough.
        unrolled: LLVM unrolls loops by itself for this core.
        halved: works on one half of a register after the other (AVX-512 on Zen 4).
    """

    lanes: int
    registers: int
    fused_weights: bool = False
    threads: int = 1
    unrolled: bool = False
    halved: bool = False

    def __post_init__(self) -> None:
        if self.lanes not in (4, 8, 16):
            raise Unsupported(f"a vector of {self.lanes} float32 lanes")

    @property
    def is_avx2(self) -> bool:
        """Vectors of AVX-512's half and half as many registers."""
        return self.lanes == 8

    @property
    def is_wide(self) -> bool:
        """AVX-512 that starts as many multiply-adds of whole registers a cycle as loads: Intel, and AMD from Zen 5 on.

        What crosses cache lines counts as two loads, so vectors should be aligned. On Zen 4 what is done for these
        gains nothing: one thing at a time MobileNetV2, dense to 90 % pruned, is 0.98 to 1.01 times as fast.
        """
        return self.lanes == 16 and not self.halved

    @property
    def is_arm64(self) -> bool:
        """NEON with 32 registers."""
        return self.fused_weights and self.registers >= 32
