"""One row per core: its instructions, caches, tiles and thresholds, and where each was measured.

A new core begins with the row of its instruction set. What is measured on it goes into a row of its own here, with the
JSON of the measurement named beside it; no kernel changes.
"""

from __future__ import annotations

import math
from dataclasses import replace

from onexn_plugins.tvm_backend.kernels.unit import Isa, Measured, Packing, VectorUnit, WinogradCosts

AVX512 = Isa("AVX-512", 512, 32)
AVX2 = Isa("AVX2", 256, 16)
SSE = Isa("SSE4.2", 128, 16)
NEON = Isa("NEON", 128, 32, multiplies_by_lane=True, loads_pairs=True, near_pairs=True, keeps_nan=True,
           shuffled_strides=(2,), prefetches=False)
NEON32 = Isa("32-bit NEON", 128, 16, multiplies_by_lane=True, loads_pairs=True, keeps_nan=True, shuffled_strides=(2,),
             prefetches=False)

# Runs of output channels from which on it pays that an input channel's pixels stay in the first cache: ResNet-50's and
# MobileNetV2's layers are 1.0 to 1.5 times faster with 7 and more of them, up to a third slower with 4.
_LEAST_USES = 7

# ResNet-50's layers at 1 to 100 % of the blocks on AVX-512. On AVX2 and SSE the same costs choose the fastest in 30 of
# 32 cases, in the worst one 1.3 times slower than that (benchmarks/winograd/results/winograd.json).
_WINOGRAD = WinogradCosts(there=21, back=5, weight=4, sums=1, phases=0.7, direct=0.95)
# Points that lie far apart take longer to write. So the fastest is chosen in 14 of 16 cases, in the worst one 1.1 times
# slower than that (benchmarks/winograd/results/intel.json).
_WINOGRAD_BY_POINTS = replace(_WINOGRAD, there=34, back=11)
# Transforming is cheaper beside multiply-adds of four lanes: instructions of ResNet-18's layers and small ones at 3 to
# 100 % of the blocks (benchmarks/arm/results/winograd.json).
_WINOGRAD_NEON = WinogradCosts(there=4.4, back=4.4, weight=0, sums=0.85, phases=0.85, direct=1)
# As before that was counted, a guess.
_WINOGRAD_NEON32 = replace(_WINOGRAD_NEON, there=8.1, back=8.1)

# AVX-512 with data paths of 256 bits: one half of a register after the other. What the wide cores below gain brings
# nothing here: one thing at a time MobileNetV2, dense to 90 % pruned, is 0.98 to 1.01 times as fast.
# benchmarks/latency/results/*.json, benchmarks/density/results/density.json
# A linear layer's vector is the N weights of one input, so it wastes the lanes that N leaves empty; twice N already
# hides most of that (against dense N = 16: 0.24 at N = 2, 0.42 at 4, 0.8 at 8).
_ZEN4 = Measured(
    sums=16, pointwise_sums=16, joined_sums=26, channels=16, winograd=_WINOGRAD, rows_at_once=7, whole_rows=8,
    linear_efficiency=1.7 / 16, least_uses=_LEAST_USES, reads_unpadded=True, stems=True)
# As many multiply-adds of whole registers a cycle as loads: Intel, and AMD from Zen 5 on. What crosses cache lines
# counts as two loads, so vectors should be aligned. benchmarks/latency/results/intel/*.json
# An image of 1 MiB and more is best read once, and aligned channels are packed as others (256→64 at 56×56, half of the
# blocks kept: 1.2 times faster).
_WIDE = replace(
    _ZEN4, packing=Packing(_LEAST_USES, _LEAST_USES, aligned_few=math.inf, aligned_many=16), copies_unaligned=True,
    cached_bands=True, projects=True, whole_strips=True, winograd_by_points=_WINOGRAD_BY_POINTS, by_points="many")
# 16 registers for two multiply-adds a cycle, each of which takes four cycles: eight sums are too few, and more than six
# channels leave no room for a second vector of pixels; 4×3 was 5 to 20 % faster than 4×2. A last column may join 12
# sums. Indices cost more beside multiply-adds of half the lanes (0.96 of the dense time with 80 % kept, 0.6 with 50 %);
# linear layers reach 0.5 at N = 4, 0.86 at 8 and 0.94 at 16. Rows are faster without blocks, too, by up to 60 % (49 to
# 3136 rows). benchmarks/latency/results/avx2/*.json, benchmarks/density/results/avx2.json
_AVX2 = Measured(
    sums=12, pointwise_sums=12, joined_sums=13, channels=6, fills_registers=True, winograd=_WINOGRAD,
    conv_efficiency=0.85, linear_efficiency=0.11, linear_most=0.94, dense_rows=True, least_uses=_LEAST_USES,
    packing=Packing(_LEAST_USES, 5, _LEAST_USES, 5), slices=True, reads_unpadded=True, pairs_far=False,
    lays_out=True, by_points="always")
# Measured on processors that have more: benchmarks/winograd/results/winograd.json
_SSE = Measured(sums=8, pointwise_sums=8, joined_sums=10, channels=8, winograd=_WINOGRAD, linear_efficiency=1.7 / 4,
                reads_unpadded=True)
# Multiplying by a lane leaves more registers to the sums of one tap: 24 of 32 (4×6, 8×3). With 28 (4×7) two blocks a
# turn spill; the loads of several taps come ahead of their sums and take more registers, too. Instructions counted:
# benchmarks/arm/results/instructions.json, loops analysed: benchmarks/arm/results/mca.json
_NEON = Measured(
    sums=16, pointwise_sums=24, joined_sums=26, channels=16, dense_block=8, rows_at_once=7, whole_rows=7,
    linear_efficiency=1.7 / 4, winograd=_WINOGRAD_NEON, winograd_kernels="3×3")
# benchmarks/arm/results/cortex_a7.json
_NEON32 = Measured(sums=8, pointwise_sums=8, joined_sums=10, channels=8, linear_efficiency=1.7 / 4,
                   winograd=_WINOGRAD_NEON32, winograd_kernels="3×3")

_OUT_OF_ORDER = VectorUnit(NEON, _NEON)
# For cores that run in order LLVM unrolls loops by itself.
_IN_ORDER = replace(_OUT_OF_ORDER, unrolls=True)

CORES: dict[str, VectorUnit] = {
    "sse": VectorUnit(SSE, _SSE),
    "avx2": VectorUnit(AVX2, _AVX2),
    "avx512": VectorUnit(AVX512, _WIDE),
    "zen4": VectorUnit(AVX512, _ZEN4),
    "cortex-a7": VectorUnit(NEON32, _NEON32),
    "cortex-a53": _IN_ORDER,
    "cortex-a55": _IN_ORDER,
    "cortex-a72": _OUT_OF_ORDER,
    "cortex-a76": _OUT_OF_ORDER,
    "cortex-a78": _OUT_OF_ORDER,
    "neoverse-n1": _OUT_OF_ORDER,
    "neoverse-n2": _OUT_OF_ORDER,
    "neoverse-v2": _OUT_OF_ORDER,
    "apple": _OUT_OF_ORDER,
    "neon": _OUT_OF_ORDER,  # 64-bit ARM of any other name
}
