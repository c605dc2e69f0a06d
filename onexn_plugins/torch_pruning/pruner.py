"""OneXNPruner: torch-pruning's pruner interface, with masks on 1×N blocks in place of removed channels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.pruner.algorithms.scheduler import linear_scheduler

from onexn_plugins import pruning
from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import dense_filters, fold, mask_of
from onexn_plugins.measurement import ModelReport, measure
from onexn_plugins.pattern import nonzero_blocks
from onexn_plugins.pruning import Target
from onexn_plugins.rearrangement.applied import applied_permutations
from onexn_plugins.rearrangement.run import Rearrangement
from onexn_plugins.selection import check_ratio, only_shrinking
from onexn_plugins.torch_pruning import arguments, history, targets
from onexn_plugins.torch_pruning.arguments import Regrowth, Scheduler
from onexn_plugins.torch_pruning.graph import build_graph
from onexn_plugins.torch_pruning.groups import BlockGroup
from onexn_plugins.torch_pruning.importance import (
    BlockImportance,
    BlockL1Importance,
    BlockScoreImportance,
    block_scores,
    check_importance,
)
from onexn_plugins.torch_pruning.order import guard_masked_models


class OneXNPruner(tp.pruner.BasePruner):  # type: ignore[misc]
    """Prunes 1×N blocks the way torch-pruning prunes channels: construct it, then call `step()`.

    Layers are masked, never cut: shapes and names stay, and training keeps the zeros. Pruned by default is every
    convolution of one or two dimensions, transposed ones too, but the stem and depthwise ones. The model need not be
    traceable, it only has to run.

    Arguments that BasePruner has too may be given by position, in its order.

    Args:
        model: pruned in place.
        example_inputs: a tensor, a tuple or a dict that the model runs on.
        importance: which blocks matter; ours, a `BlockImportance`, or torch-pruning's Magnitude, LAMP, Taylor,
            Hessian or Random importance (see `block_scores`). Default: BlockL1Importance().
        block_size: N, 1 to 32.
        pruning_ratio: fraction of blocks to remove in each layer, or in all together with scope="global".
        rearrange: move channels first, so that important weights fall into the same blocks: True or "swap" for the
            search, "sort" for the paper's way. The model's function stays as it was; `pruner.rearrangement` says
            what moved. Done here, not in step(), so that gradients and optimizers made later fit.
        scope: "layer", "row" (every block row keeps equally many blocks, which balances threads) or "global"
            (layers compete; the same as torch-pruning's global_pruning=True).
        full: Linear layers too.
        min_pruning_ratio, max_pruning_ratio: bounds of each layer's own ratio; the lower one with "global" only.
        straight_through: pruned weights keep receiving gradients, so that their blocks may come back.
        regrowth: the fraction of pruned blocks that compete again in each step, or a function of (step,
            iterative_steps) that returns it; needs straight_through.
        pruning_ratio_dict: {module, name or tuple of these: ratio}. A layer named here is pruned even if it would
            not be by default. With "global", the layers of one key compete among themselves.
        iterative_steps, iterative_pruning_ratio_scheduler: gradual pruning, one step() each. Blocks that are
            pruned stay pruned.
        ignored_layers: modules, names, module types or parameters of the layers to leave dense.
        round_to: accepted where the widths of all layers to prune are multiples of it, which they stay.
        isomorphic: with "global", only layers of the same type and kernel size compete.
        root_module_types: types of the layers to prune.
        others: what BasePruner takes besides. forward_fn(model, example_inputs) runs the model; output_transform,
            unwrapped_parameters and customized_pruners serve to trace `DG`. The rest (num_heads, channel
            groups, ...) concerns removed channels and heads: anything but the default is refused.

    Raises:
        OneXNError: an argument is wrong or does not fit the model, which is unchanged then.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        importance: Callable[[Any], Tensor] | None = None,
        global_pruning: bool = False,
        pruning_ratio: float = 0.5,
        pruning_ratio_dict: Mapping[Any, float] | None = None,
        max_pruning_ratio: float = 1.0,
        iterative_steps: int = 1,
        iterative_pruning_ratio_scheduler: Scheduler = linear_scheduler,
        ignored_layers: Any = None,
        round_to: int | None = None,
        isomorphic: bool = False,
        *,
        block_size: int = 4,
        rearrange: bool | str = False,
        scope: str = "layer",
        full: bool = False,
        min_pruning_ratio: float = 0.0,
        straight_through: bool = False,
        regrowth: Regrowth = 0.0,
        root_module_types: Any = (nn.modules.conv._ConvNd, nn.Linear),
        **others: Any,
    ) -> None:
        # BasePruner.__init__ is left out: it traces the model, which masks do not need and some models do not
        # bear, and it writes into its own default arguments.
        guard_masked_models()
        self._tracing = arguments.tracing_arguments(others)
        arguments.check_model(model, example_inputs, self._tracing["forward_fn"])
        self.model, self.example_inputs, self.block_size = model, example_inputs, block_size
        self.importance = check_importance(BlockL1Importance() if importance is None else importance)
        self.scope = arguments.check_scope(scope, global_pruning, isomorphic, min_pruning_ratio)
        self.global_pruning, self.isomorphic = self.scope == "global", isomorphic
        self.iterative_steps = arguments.check_steps(iterative_steps)
        self.iterative_pruning_ratio_scheduler = iterative_pruning_ratio_scheduler
        self.max_pruning_ratio = check_ratio(max_pruning_ratio, "max_pruning_ratio")
        self.straight_through = straight_through
        self._regrowth = arguments.check_regrowth(regrowth, straight_through)
        self.current_step = 0

        self.pruning_ratio = arguments.renamed_argument(others, "ch_sparsity", pruning_ratio)
        self.per_step_pruning_ratio = self._per_step(self.pruning_ratio, "pruning_ratio")
        self._min_ratios = self._per_step(min_pruning_ratio, "min_pruning_ratio")
        named = arguments.renamed_argument(others, "ch_sparsity_dict", pruning_ratio_dict)
        entries = targets.named_ratios(model, named, self._per_step)

        ignored = targets.ignored_layer_names(model, ignored_layers)
        self.ignored_layers = [model.get_submodule(name) for name in ignored]
        self.root_module_types = root_module_types
        self.layers = targets.select_layers(model, ignored, entries, root_module_types, full)
        arguments.check_widths(self.layers, round_to)
        self._competitions = targets.competitions(
            self.layers, entries, self.per_step_pruning_ratio, self.scope, isomorphic)
        self.pruning_ratio_dict = {
            self.layers[name]: entry.ratios for entry in entries for name in entry.inside if name in self.layers}
        final = self._targets(self.iterative_steps)
        pruning.check(self.layers, final)
        self._bind_importance()
        self.rearrangement = self._rearranged(final, rearrange) if rearrange else None

    def step(self, interactive: bool = False) -> Iterator[BlockGroup] | None:
        """Prune to the ratio of the next step.

        Args:
            interactive: return the layers as groups instead; each is masked by its own prune().

        Raises:
            OneXNError: a layer cannot be ranked or masked; no layer is changed then and the step is not counted.
        """
        groups: list[BlockGroup] = []
        if self.current_step >= self.iterative_steps:
            warnings.warn(f"all {self.iterative_steps} steps are done, nothing is pruned", stacklevel=2)
        else:
            groups = self._groups(self.current_step + 1)
            self.current_step += 1
        if interactive:
            return iter(groups)
        for group in groups:
            group.prune()
        return None

    def estimate_importance(self, group: Any) -> Tensor:
        """Block scores [block_rows, in / groups] of the group's root layer, by the pruner's importance."""
        if not isinstance(group, BlockGroup):
            layer = group[0].dep.target.module
            name = next((name for name, module in self.model.named_modules() if module is layer), "layer")
            group = BlockGroup(name, layer, self.block_size)
        return block_scores(self.importance, group)

    def state_dict(self) -> dict[str, Any]:
        """Where the run is and by which recipe, in plain values: for save_checkpoint(model, path, pruner=...)."""
        return {"step": self.current_step, "recipe": self._recipe()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the step that `state_dict` was taken at; masks and permutations are in the checkpoint.

        Raises:
            OneXNError: the state is of a pruner with other arguments.
        """
        recipe = self._recipe()
        arguments.check_state(state, recipe, self.iterative_steps)
        for name, value in recipe.items():
            if state["recipe"][name] != value:
                raise OneXNError(name, f"was {state['recipe'][name]!r} when the state was saved and is {value!r} now",
                                 "Construct the pruner with the arguments of the saved run")
        self.current_step = state["step"]

    def _recipe(self) -> dict[str, Any]:
        settings = {name: value for name, value in getattr(self.importance, "__dict__", {}).items()
                    if isinstance(value, (bool, int, float, str))}
        return {
            "block_size": self.block_size, "scope": self.scope, "straight_through": bool(self.straight_through),
            "importance": [type(self.importance).__name__, settings], "iterative_steps": self.iterative_steps,
            "min_ratios": list(self._min_ratios), "max_pruning_ratio": self.max_pruning_ratio,
            "competitions": [[list(each.names), list(each.ratios)] for each in self._competitions],
        }

    @property
    def permutations(self) -> dict[str, Tensor]:
        """Layer -> int64 [out_channels]: how rearrangements, also those of a loaded checkpoint, moved its channels."""
        return applied_permutations(self.model)

    def fold(self) -> nn.Module:
        """Make the masks plain zeros; see onexn_plugins.fold."""
        return fold(self.model)

    def report(self) -> ModelReport:
        """What every layer keeps; see onexn_plugins.measure."""
        inputs = self.example_inputs if self._tracing["forward_fn"] is None else None
        return measure(self.model, self.block_size, inputs)

    def _per_step(self, ratio: Any, layer: str) -> tuple[float, ...]:
        return arguments.schedule(self.iterative_pruning_ratio_scheduler, ratio, self.iterative_steps, layer)

    def _bind_importance(self) -> None:
        if isinstance(self.importance, BlockScoreImportance):
            self.importance.bind(self.model)

    def _targets(self, step: int) -> dict[str, Target]:
        wanted = targets.targets_of(self._competitions, step, block_size=self.block_size, scope=self.scope,
                                    min_ratios=self._min_ratios, max_ratio=self.max_pruning_ratio)
        return {name: wanted[name] for name in self.layers}

    def _rearranged(self, final: Mapping[str, Target], method: bool | str) -> Rearrangement:
        if self._tracing["forward_fn"] is not None:
            raise OneXNError("forward_fn", "a rearrangement is proved by running model(example_inputs)",
                             "Pass example_inputs that the model takes by itself, or leave out rearrange")
        return pruning.rearrange(self.model, self.example_inputs, self.layers, final, method)

    @torch.no_grad()
    def _groups(self, step: int) -> list[BlockGroup]:
        """Every layer with the blocks it keeps after `step`."""
        self._bind_importance()  # the user may have put another in its place
        wanted = self._targets(step)
        pruning.check(self.layers, wanted)
        scores = {name: self._scores(BlockGroup(name, layer, self.block_size), step)
                  for name, layer in self.layers.items()}
        # torch-pruning's importances come with a normalizer of their own, which the user chose.
        keep = pruning.keep_blocks(scores, wanted, normalize=isinstance(self.importance, BlockImportance))
        return [BlockGroup(name, layer, self.block_size, keep[name], self.straight_through)
                for name, layer in self.layers.items()]

    def _scores(self, group: BlockGroup, step: int) -> Tensor:
        """Scores in which blocks pruned in earlier steps, also ones that were folded since, rank last."""
        mask, pattern = mask_of(group.layer), group.pattern
        keep_before = mask.keep if mask is not None else None
        if keep_before is None and self.current_step > 0:
            keep_before = nonzero_blocks(dense_filters(group.layer), pattern)
        return only_shrinking(self.estimate_importance(group), keep_before,
                              self._regrowth(step, self.iterative_steps))

    @cached_property
    def DG(self) -> tp.DependencyGraph:
        """torch-pruning's graph of the model, traced when first asked for; masks do not need it."""
        return build_graph(self.model, self.example_inputs, **self._tracing)

    def manual_prune_width(self, *args: Any, **kwargs: Any) -> None:
        """Refused: widths stay. Edit group.keep in an interactive step instead."""
        raise OneXNError("manual_prune_width", arguments.NO_CHANNELS,
                         "Set group.keep in step(interactive=True), or use a structural pruner before this one")

    def pruning_history(self) -> list[dict[str, Any]]:
        """Rearrangements and masks so far, as plain data to save beside the state_dict and to replay."""
        return history.history_of(self.model)

    def load_pruning_history(self, pruning_history: Any) -> None:
        """Rearrange and mask the model as a saved history says; then load the state_dict that was saved with it.

        Raises:
            OneXNError: it does not fit the model, which is unchanged then, or it is one of removed channels.
        """
        history.replay(self.model, pruning_history)
