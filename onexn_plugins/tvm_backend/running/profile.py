"""Where the time of a compiled network goes: every kernel timed inside the running network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onexn_plugins.tvm_backend.lowering.relax_module import KERNEL_PREFIX
from onexn_plugins.tvm_backend.planning.layer import Layer
from onexn_plugins.tvm_backend.running.roofline import Roofline


@dataclass(frozen=True)
class Step:
    """One call of a kernel of ours.

    Attributes:
        kernel: its family, such as "conv_1x1".
        layers: positions in `Compiled.layers` of what it computes; none for a pool.
        weight_bytes: weights, indices and biases it reads.
    """

    kernel: str
    layers: tuple[int, ...]
    weight_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the saved description holds them."""
        return {"kernel": self.kernel, "layers": list(self.layers), "weight_bytes": self.weight_bytes}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any], layers: int) -> Step:
        """The step again, of a network of so many layers.

        Raises:
            ValueError, TypeError, KeyError: the entry describes none.
        """
        positions, weight_bytes = tuple(entry["layers"]), entry["weight_bytes"]
        if any(type(number) is not int for number in (*positions, weight_bytes)):
            raise TypeError(f"layers {positions} and {weight_bytes!r} bytes are not whole numbers")
        if any(not 0 <= position < layers for position in positions):
            raise ValueError(f"layers {positions} where there are {layers}")
        return cls(str(entry["kernel"]), positions, weight_bytes)


@dataclass(frozen=True)
class KernelTime:
    """One kernel of a network.

    Attributes:
        name: the layers it computes, or TVM's name of the function.
        kernel: its family; "tvm" where it is TVM's own code.
        milliseconds: median of one call.
        share: of the sum over all kernels.
        macs: multiply-adds a direct computation needs (skipped blocks left out); Winograd's algorithm does fewer.
        roofline: the least possible time over the measured one; None where it multiplies nothing.
    """

    name: str
    kernel: str
    milliseconds: float
    share: float
    macs: int
    roofline: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Profile:
    """The kernels of a network in the order they run, and the machine's limits they were compared with."""

    kernels: tuple[KernelTime, ...]
    limits: Roofline

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"kernels": [kernel.to_dict() for kernel in self.kernels], "limits": asdict(self.limits)}


def profile_of(calls: Sequence[tuple[str, float]], steps: Sequence[Step], layers: Sequence[Layer],
             limits: Roofline) -> Profile:
    """Name timed calls after the layers they compute: steps are the calls of our kernels, in the same order."""
    remaining = iter(steps)
    total = sum(seconds for _, seconds in calls)
    return Profile(tuple(
        _row(name, seconds, next(remaining, None) if name.startswith(KERNEL_PREFIX) else None, layers, total, limits)
        for name, seconds in calls
    ), limits)


def _row(name: str, seconds: float, step: Step | None, layers: Sequence[Layer], total: float,
         limits: Roofline) -> KernelTime:
    if step is None:
        return KernelTime(name, "tvm", seconds * 1e3, seconds / total, 0, None)
    computed = [layers[position] for position in step.layers]
    macs = sum(layer.macs for layer in computed)
    roofline = limits.seconds(macs, step.weight_bytes) / seconds if macs else None
    return KernelTime(" + ".join(layer.name for layer in computed) or step.kernel, step.kernel, seconds * 1e3,
                      seconds / total, macs, roofline)
