"""Which layers 1×N applies to, by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeGuard, get_args

from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.pattern import BlockPattern, turned, weight_mask

# A first convolution that reads at most this many channels is the stem: it sees the image (grey, RGB, RGB-D).
STEM_CHANNELS = 4

# Three-dimensional convolutions are none: no kernel would compute them faster.
PrunableConv = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d
PrunableLayer = PrunableConv | nn.Linear
CONVOLUTIONS = tuple(kind.__name__ for kind in get_args(PrunableConv))
PRUNABLE = f"{', '.join(CONVOLUTIONS)} and Linear"  # for messages


def is_depthwise(module: nn.Module) -> bool:
    """One input channel per group: a 1×N block would be all there is."""
    return isinstance(module, PrunableConv) and module.groups > 1 and module.in_channels == module.groups


def is_transposed(module: nn.Module) -> bool:
    """Its weight is [in, out / groups, *kernel]; every other one is [out, in / groups, *kernel]."""
    return isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d))


def why_dense(module: nn.Module) -> str | None:
    """Why 1×N has nothing to gain in a layer with a weight; None where it has."""
    if is_depthwise(module):
        return "is a depthwise convolution: one kernel per channel makes no 1×N blocks"
    if _has_blocks(module) and _stated_channels(module) == 1:
        return "has one output channel, which makes no block of several"
    return None


def groups_of(module: nn.Module) -> int:
    """Conv groups; 1 for Linear."""
    return module.groups if isinstance(module, PrunableConv) else 1


def out_first(layer: PrunableLayer, tensor: Tensor) -> Tensor:
    """The layer's weight, or what has its shape, as [out, in / groups, *kernel]: the form that blocks are cut from."""
    return turned(tensor, groups_of(layer)) if is_transposed(layer) else tensor


def as_stored(layer: PrunableLayer, tensor: Tensor) -> Tensor:
    """What is [out, in / groups, *kernel] in the form of the layer's weight."""
    return turned(tensor, groups_of(layer)) if is_transposed(layer) else tensor


def out_channels(layer: PrunableLayer) -> int:
    """As its weight has them."""
    return layer.weight.shape[1] * groups_of(layer) if is_transposed(layer) else layer.weight.shape[0]


def fan_in(layer: PrunableLayer) -> int:
    """How many weights each of its output channels has."""
    return out_first(layer, layer.weight)[0].numel()


def out_dim(layer: PrunableLayer) -> int:
    """The dimension of its weight that its output channels lie along."""
    return 1 if is_transposed(layer) else 0


def pattern_of(layer: PrunableLayer, block_size: int, name: str = "layer") -> BlockPattern:
    """The blocks of the layer's weight.

    Raises:
        OneXNError: block_size is no integer in 1..32.
    """
    return BlockPattern.of(out_first(layer, layer.weight), block_size, groups_of(layer), name)


def mask_for(layer: PrunableLayer, keep: Tensor, pattern: BlockPattern) -> Tensor:
    """Kept blocks as a mask that broadcasts over the layer's weight."""
    return weight_mask(keep, pattern, layer.weight, is_transposed(layer))


def weighted_layers(model: nn.Module) -> dict[str, PrunableLayer]:
    """Every Linear layer and every convolution of one or two dimensions by qualified name, each module once."""
    return {name: module for name, module in model.named_modules() if _has_blocks(module)}


def prunable_layers(
    model: nn.Module, ignored_layers: Iterable[str | nn.Module] = (), *, full: bool = False
) -> dict[str, PrunableLayer]:
    """The layers pruned by default: every convolution but stems and those without blocks (`why_dense`).

    Args and errors: as `default_layers`.
    """
    return {name: module for name, module in default_layers(model, ignored_layers, full=full).items()
            if why_dense(module) is None}


def default_layers(
    model: nn.Module, ignored_layers: Iterable[str | nn.Module] = (), *, full: bool = False
) -> dict[str, PrunableLayer]:
    """The layers that the default rule chooses: every convolution but stems, whether or not 1×N has anything to gain.

    Args:
        model: any torch module.
        ignored_layers: names or modules to leave dense; a container leaves out everything inside it.
        full: Linear layers too.

    Raises:
        OneXNError: a name in ignored_layers does not exist.
    """
    layers = weighted_layers(model)
    left_out = {*ignored_names(model, ignored_layers), *_stems(layers)}
    return {name: module for name, module in layers.items()
            if name not in left_out and (full or not isinstance(module, nn.Linear))}


def ignored_names(model: nn.Module, ignored_layers: Iterable[str | nn.Module]) -> set[str]:
    """Qualified names of ignored_layers and of everything inside them."""
    if isinstance(ignored_layers, (str, nn.Module)) or not isinstance(ignored_layers, Iterable):
        raise OneXNError("ignored_layers", f"must be a list, got {type(ignored_layers).__name__}",
                         "Pass a list of modules or names")
    modules = dict(model.named_modules())
    names: set[str] = set()
    for layer in ignored_layers:
        if isinstance(layer, str):
            roots = [check_layer_name(layer, modules)]
        else:
            roots = [name for name, module in modules.items() if module is layer and isinstance(layer, nn.Module)]
            if not roots:
                raise OneXNError("ignored_layers", f"{_short(layer)} is no layer of the model",
                                 "Pass modules of this model or their names")
        for root in roots:
            names.update(name for name in modules if name == root or root == "" or name.startswith(f"{root}."))
    return names


def check_layer_name(name: str, known: Iterable[str]) -> str:
    """`name` itself; OneXNError with the closest names where it does not exist."""
    known = list(known)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"Did you mean {' or '.join(close)}" if close else "List the names with model.named_modules()"
        raise OneXNError(name, "the model has no layer of this name", hint)
    return name


def check_layers(layers: Mapping[str, PrunableLayer]) -> None:
    """Raise OneXNError where there is nothing to prune or a weight has no values yet; all such layers are named."""
    if not layers:
        raise OneXNError("model", "it has no layer that 1×N pruning applies to",
                         "Convolutions of one and two dimensions, transposed ones too, are pruned besides the stem and "
                         "depthwise ones; full=True adds Linear")
    empty = [name or "model" for name, module in layers.items()
             if isinstance(module.weight, nn.UninitializedParameter) or module.weight.is_meta]
    if empty:
        raise OneXNError(", ".join(empty), "the weight has no values yet",
                         "Run a lazy model once; load the weights of a meta one")


def _short(value: object) -> str:
    text = repr(value).splitlines()[0] if repr(value) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def _stems(layers: Mapping[str, PrunableLayer]) -> Iterator[str]:
    """The first convolution of one and of two dimensions, where it reads few channels.

    A transposed one counts if it comes before every other: decoders may stand before encoders in a model.
    """
    seen: set[tuple[int, bool]] = set()
    for name, module in layers.items():
        if isinstance(module, nn.Linear):
            continue
        dims, transposed = len(module.kernel_size), is_transposed(module)
        if (dims, False) not in seen and (dims, transposed) not in seen and module.in_channels <= STEM_CHANNELS:
            yield name
        seen.add((dims, transposed))


def _stated_channels(module: PrunableLayer) -> int:
    """As the module states it: a lazy weight has no shape yet."""
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)


def _has_blocks(module: nn.Module) -> TypeGuard[PrunableLayer]:
    return isinstance(module, PrunableLayer)
