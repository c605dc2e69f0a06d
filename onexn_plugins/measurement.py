"""What a model holds: sparsity in blocks and in weights, multiply-accumulates, per layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from onexn_plugins.inputs import call_model, keep_state, tensors_in
from onexn_plugins.layers import is_transposed, out_first, pattern_of, prunable_layers, weighted_layers
from onexn_plugins.pattern import check_block_size, is_block_sparse, nonzero_blocks, nonzero_kernels


class Sparsity(NamedTuple):
    """Fractions removed: of blocks and of weights. They differ where tail blocks or kernel sizes mix."""

    blocks: float
    weights: float


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        name, shape: qualified name and weight shape [out, in / groups, *kernel], of transposed convolutions too.
        prunable: 1×N applies to it by default.
        block_sparse: it has zero blocks, and its zero kernels lie in them.
        blocks, kept: blocks in all and with any non-zero weight.
        weights, nonzero: weights in all and in non-zero kernels.
        macs, dense_macs: multiply-accumulates of one forward pass with and without the zero kernels; None
            without example inputs. Padding counts, as does what a transposed convolution's padding cuts off.
    """

    name: str
    shape: tuple[int, ...]
    prunable: bool
    block_sparse: bool
    blocks: int
    kept: int
    weights: int
    nonzero: int
    macs: int | None = None
    dense_macs: int | None = None

    @property
    def sparsity(self) -> Sparsity:
        return Sparsity(1 - self.kept / self.blocks, 1 - self.nonzero / self.weights)


@dataclass(frozen=True)
class ModelReport:
    """All layers of a model at one block size."""

    block_size: int
    layers: tuple[LayerReport, ...]

    @property
    def sparsity(self) -> Sparsity:
        """Over the layers that are prunable by default or hold zero blocks.

        Dead filters of a depthwise layer (one input channel per group) are not pruning: they stay out.
        """
        counted = [layer for layer in self.layers if layer.prunable or (layer.block_sparse and layer.shape[1] > 1)]
        blocks, weights = sum(layer.blocks for layer in counted), sum(layer.weights for layer in counted)
        if not counted:
            return Sparsity(0.0, 0.0)
        return Sparsity(1 - sum(layer.kept for layer in counted) / blocks,
                        1 - sum(layer.nonzero for layer in counted) / weights)

    @property
    def macs(self) -> int | None:
        return _total([layer.macs for layer in self.layers])

    @property
    def dense_macs(self) -> int | None:
        return _total([layer.dense_macs for layer in self.layers])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"sparsity": self.sparsity._asdict(), "macs": self.macs, "dense_macs": self.dense_macs}


def measure(model: nn.Module, block_size: int = 4, example_inputs: Any = None) -> ModelReport:
    """Count what every layer with blocks keeps; one narrower than block_size counts as one tail block per column.

    Args:
        model: masked or folded; it is not changed.
        block_size: N of the blocks to count in.
        example_inputs: a tensor, tuple or dict; where given, multiply-accumulates are counted by one forward pass.
    """
    check_block_size(block_size)
    prunable = prunable_layers(model)
    positions = _output_positions(model, example_inputs) if example_inputs is not None else {}
    reports = []
    for name, module in weighted_layers(model).items():
        weight, pattern = out_first(module, module.weight.detach()), pattern_of(module, block_size, name)
        taps = weight[0, 0].numel()
        nonzero = int(nonzero_kernels(weight).sum()) * taps
        uses = positions.get(name, 0) if positions else None
        reports.append(LayerReport(
            name, tuple(weight.shape), name in prunable, is_block_sparse(weight, pattern),
            pattern.num_blocks, int(nonzero_blocks(weight, pattern).sum()), weight.numel(), nonzero,
            None if uses is None else nonzero * uses, None if uses is None else weight.numel() * uses,
        ))
    return ModelReport(block_size, tuple(reports))


def _output_positions(model: nn.Module, example_inputs: Any) -> dict[str, int]:
    """How often each layer's weight is applied in one forward pass.

    Once for every place of its output, or of its input where it is a transposed convolution.
    """
    counts: dict[str, int] = {}

    def counter(name: str, transposed: bool, channels: int) -> Callable[[nn.Module, Any, Any, torch.Tensor], None]:
        def count(module: nn.Module, inputs: Any, named: Any, output: torch.Tensor) -> None:
            places = tensors_in([inputs, named])[0] if transposed else output
            counts[name] = counts.get(name, 0) + places.numel() // channels

        return count

    handles = [module.register_forward_hook(counter(name, is_transposed(module), module.weight.shape[0]),
                                            with_kwargs=True)
               for name, module in weighted_layers(model).items()]
    try:
        with keep_state(model):
            call_model(model.eval(), example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return counts


def _total(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
