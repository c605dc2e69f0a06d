"""python -m benchmarks.rearrangement.one_network NETWORK: rearranges it and prints what happened as one line of JSON.

In a process of its own, so that the peak memory is this network's alone.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import torch

from onexn_plugins import rearrange
from onexn_plugins.zoo import load_model

# These keep most of their weights in Linear layers, which are pruned only on request.
LINEAR_TOO = ("convnext_tiny", "vit_b_16", "swin_t", "timm/edgenext_xx_small")
PIXELS = {"inception_v3": 299}


def measured(network: str, block_size: int, ratio: float, method: str) -> dict[str, Any]:
    """Layers moved and refused, the proof's error, seconds by phase, peak memory of this process in bytes."""
    torch.set_num_threads(1)
    model, size = load_model(network), PIXELS.get(network, 224)
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    clock = _Clock()
    result = rearrange(model, image, block_size=block_size, pruning_ratio=ratio, method=method, progress=clock,
                       full=network in LINEAR_TOO or None)
    return {
        "name": network, "pixels": size, "layers": len(result.layers), "spaces": len(result.moves),
        "moved": sum(layer.moved for layer in result.layers), "refused": len(result.refused),
        "reasons": dict(result.refused), "none": result.retained_before, "kept": result.retained_after,
        "proof_error": result.max_error, **clock.seconds, "seconds": sum(clock.seconds.values()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


class _Clock:
    """CPU seconds of each phase, from the calls of a progress callback."""

    def __init__(self) -> None:
        self.seconds = {"trace_seconds": 0.0, "search_seconds": 0.0, "proof_seconds": 0.0}
        self._phase, self._last = "trace_seconds", time.process_time()

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.process_time()
        self.seconds[self._phase] += now - self._last
        self._last = now
        self._phase = f"{what}_seconds" if what in ("trace", "proof") else "search_seconds"


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])))
