"""`OneXNPruner`: NNI's words (config_list, compress, schedulers) translated into the core's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import nni.compression.pruning
import torch
from nni.compression.base.compressor import Compressor
from nni.compression.base.wrapper import ModuleWrapper
from nni.compression.pruning.basic_pruner import _NormPruner
from nni.compression.utils import Evaluator
from torch import Tensor, nn

from onexn_plugins import pruning
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableLayer, check_layer_name, out_first
from onexn_plugins.nni.checks import check_arguments, check_wrappable
from onexn_plugins.nni.config import LayerSetting, resolve
from onexn_plugins.nni.wrapper import BlockMaskWrapper
from onexn_plugins.rearrangement.applied import take_back
from onexn_plugins.scores import BlockScore, Sources, make_score, score_blocks
from onexn_plugins.selection import only_shrinking

Masks = dict[str, dict[str, Tensor]]  # layer -> target ("weight") -> tensor


class OneXNPruner(_NormPruner):
    """Prunes 1×N blocks (TPAMI 2022) of the layers that config_list selects, stem and Linear layers included.

    Depthwise convolutions and layers with one output channel have no 1×N blocks: selected by type they stay dense,
    named one by one they are refused.
    The masks are those of the core's selection, and so those of the torch-pruning adapter, bit for bit.

    Args:
        model: any torch module; it is wrapped in place, as by NNI's own pruners.
        config_list: NNI's. Followed are op_types, op_names, op_names_re, their exclude_ forms, sparse_ratio,
            sparse_threshold (on block L1 norms), min_sparse_ratio, max_sparse_ratio, global_group_id and
            target_settings["weight"]; an entry may carry its own block_size. Anything else is refused.
        evaluator: an NNI evaluator; schedulers need one.
        existed_wrappers: another compressor's wrappers, as `from_compressor` passes them.
        block_size: N, output channels per block, 1 to 32.
        score: a name in `onexn_plugins.scores.SCORES`, such as "l1" or "random" (seeded, without replacement, the
            same blocks in every toolkit), or a function (weight, pattern, layer) -> [block_rows, in / groups].
        seed: of the random score.
        images: calibration data, for scores that need some.
        rearrange: first move channels so that more L1 is kept: True or "swap" for the search, "sort" for the
            paper's way (`onexn_plugins.rearrange`). The function of the model stays as it was.
        example_inputs: a tensor, tuple or dict; needed by rearrange alone.

    Attributes:
        rearrangement: what rearrange did (`onexn_plugins.rearrangement.Rearrangement`), or None.

    Raises:
        OneXNError: any argument that cannot be followed; the model is as before.
    """

    p = 1  # the norm of NNI's base class

    def __init__(
        self,
        model: nn.Module,
        config_list: list[dict[str, Any]],
        evaluator: Evaluator | None = None,
        existed_wrappers: dict[str, ModuleWrapper] | None = None,
        *,
        block_size: int = 4,
        score: str | BlockScore = "l1",
        seed: int = 0,
        images: Any = None,
        rearrange: bool | str = False,
        example_inputs: Any = None,
    ) -> None:
        existed = {} if existed_wrappers is None else existed_wrappers
        check_arguments(model, evaluator, existed, score, seed, rearrange, example_inputs)
        settings = resolve(model, config_list, block_size)
        check_wrappable(model, settings, existed, score)
        layers = {name: cast(PrunableLayer, model.get_submodule(name)) for name in settings}
        targets = {name: setting.to_target() for name, setting in settings.items()}
        pruning.check(layers, targets)
        self.block_size, self.score, self.seed = block_size, score, seed
        self._score = make_score(score, Sources(model, images, seed))
        self.rearrangement = (
            pruning.rearrange(model, example_inputs, layers, targets, rearrange) if rearrange else None)
        wrappers = {name: _wrapper(model, name, setting.block_size, existed) for name, setting in settings.items()}
        entries = [setting.to_nni(name) for name, setting in settings.items()]
        try:
            super().__init__(model, entries, evaluator, {**existed, **wrappers})
        except Exception:
            for wrapper in wrappers.values():
                wrapper.unwrap()
            if self.rearrangement is not None:
                take_back(model, self.rearrangement.moves)
            raise

    @classmethod
    def from_compressor(cls, compressor: Compressor, new_config_list: list[dict[str, Any]],
                        evaluator: Evaluator | None = None, **options: Any) -> OneXNPruner:
        """A pruner of further layers that shares another compressor's wrappers and evaluator and trains with it.

        Args:
            compressor: NNI's or ours; it is unwrapped, and wrapped again by the new one.
            new_config_list: what this one prunes.
            evaluator: used where the compressor has none.
            options: the keyword arguments of OneXNPruner.

        Raises:
            OneXNError: as OneXNPruner; the compressor is then wrapped as before.
        """
        wrapped = compressor._is_wrapped
        try:
            # NNI's norm pruners take no options here, their common base class does.
            return super(_NormPruner, cls).from_compressor(compressor, new_config_list, evaluator=evaluator, **options)
        except Exception:
            if wrapped:
                compressor.wrap_model()
            raise

    def compress(self, max_steps: int | None = None, max_epochs: int | None = None) -> tuple[nn.Module, Masks]:
        """Generate the masks and put them on; (the wrapped model, {layer: {"weight": mask}}).

        Args:
            max_steps: how long to train; only where `from_compressor` fused this pruner with another.
            max_epochs: the same in epochs.
        """
        fused = len(self.fused_compressors) > 1
        given = max_steps is not None or max_epochs is not None
        if fused and not (given and self.evaluator is not None):
            raise OneXNError("compress", "a fused pruner needs an evaluator and max_steps or max_epochs", "Pass both")
        if given and not fused:
            raise OneXNError("compress", "one-shot pruning does not train", "Call it without max_steps and max_epochs")
        return super().compress(max_steps, max_epochs)

    def get_masks(self) -> Masks:
        """{layer: {"weight": mask, "bias": ones}}: the keys that NNI's own pruners give; biases are not pruned."""
        masks = super().get_masks()
        for name, targets in masks.items():
            bias = self._module_wrappers[name].module.bias
            if bias is not None and "bias" not in targets:
                targets["bias"] = torch.ones_like(bias)
        return masks

    def _fuse_preprocess(self, evaluator: Evaluator) -> None:
        """Before a fused pruner trains: without interval_steps, which NNI leaves at -1, no step would make a mask."""
        if self.interval_steps < 1 and not self.first_step_gen:
            self.update_masks(self.generate_masks())
        super()._fuse_preprocess(evaluator)

    def _fuse_postprocess(self, evaluator: Evaluator) -> None:
        """After it: a training shorter than interval_steps has made none either."""
        super()._fuse_postprocess(evaluator)
        if self.interval_steps >= 1 and self._remaining_times == self.total_times and self._current_step > 0:
            self.update_masks(self.generate_masks())

    def update_masks(self, masks: Masks) -> None:
        """Put masks on the wrapped layers.

        Raises:
            OneXNError: an unknown layer, or a mask that is not made of whole blocks.
        """
        for name, targets in masks.items():
            check_layer_name(name, self._target_spaces)
            for target, mask in targets.items():
                if target != "bias" or not bool((mask == 1).all()):  # the ones that get_masks gives
                    self._module_wrappers[name].check_mask(mask)
        super().update_masks({name: {target: mask for target, mask in targets.items() if target != "bias"}
                              for name, targets in masks.items()})
        for name in masks:
            self._module_wrappers[name].refresh()

    def _validate_config(self) -> None:
        """Nothing: `resolve` has checked more than NNI's schema, which also refuses a max_sparse_ratio of 0."""

    def _calculate_metrics(self, data: Masks) -> Masks:
        """Block scores [block_rows, in / groups] of the weights in data; blocks pruned earlier rank below all."""
        return {name: {"weight": self._block_scores(name, targets["weight"])} for name, targets in data.items()}

    def _block_scores(self, name: str, weight: Tensor) -> Tensor:
        wrapper = self._module_wrappers[name]
        weight = out_first(wrapper.module, weight)
        return only_shrinking(score_blocks(self._score, weight, wrapper.pattern, name), wrapper.keep)

    def _generate_sparsity(self, metrics: Masks) -> Masks:
        scores = {name: targets["weight"] for name, targets in metrics.items()}
        keep = pruning.keep_blocks(scores, {name: self._target_now(name) for name in scores})
        return {name: {"weight": self._module_wrappers[name].keep_to_mask(keep[name])} for name in scores}

    def _target_now(self, name: str) -> pruning.Target:
        """What NNI asks of the layer; schedulers change it between calls."""
        space = self._target_spaces[name]["weight"]
        return LayerSetting(self._module_wrappers[name].pattern.block_size, space.sparse_ratio, space.sparse_threshold,
                            space.min_sparse_ratio, space.max_sparse_ratio, space.global_group_id).to_target()


def register(*, replace: bool = False) -> None:
    """Make `nni.compression.pruning.OneXNPruner` resolve; a second call changes nothing.

    NNI 3.0 has no registry of pruners: a trial that is told a pruner's name looks it up in that module.

    Args:
        replace: take the name even where something else holds it.

    Raises:
        OneXNError: something else holds the name.
    """
    holder = getattr(nni.compression.pruning, "OneXNPruner", OneXNPruner)
    if holder is not OneXNPruner and not replace:
        raise OneXNError("nni.compression.pruning.OneXNPruner", f"the name is taken by {holder!r}",
                         "Call register(replace=True) to take it over")
    nni.compression.pruning.OneXNPruner = OneXNPruner


def _wrapper(model: nn.Module, name: str, block_size: int, existed: Mapping[str, ModuleWrapper]) -> BlockMaskWrapper:
    if name in existed:
        return BlockMaskWrapper.adopt(existed[name], block_size)
    return BlockMaskWrapper(cast(PrunableLayer, model.get_submodule(name)), name, block_size)
