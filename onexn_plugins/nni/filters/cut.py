"""`cut_filters`: what an NNI filter pruner masks is cut out of the network."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.inputs import call_model, keep_state, tensors_in
from onexn_plugins.nni.experiment.quiet import quiet
from onexn_plugins.nni.filters.stand_in import cut_by_torch_pruning
from onexn_plugins.nni.filters.tracer import tracing_on_this_torch

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilterCut:
    """A network with filters cut out, in eval mode; fine-tune it.

    Attributes:
        model: the smaller network; the one given is as it was.
        method: who cut it, "ModelSpeedup" or "torch-pruning".
        reason: why NNI's ModelSpeedup could not; empty where it did.
        parameters_before, parameters_after: how many weights and biases there are.
    """

    model: nn.Module
    method: str
    reason: str
    parameters_before: int
    parameters_after: int


def cut_filters(model: nn.Module, pruner_class: Callable[..., Any], config_list: list[dict[str, Any]],
                example_inputs: Any, **options: Any) -> FilterCut:
    """Prune filters by one of NNI's criteria and cut them out.

    NNI's ModelSpeedup cuts where it can. Where it cannot (grouped convolutions, channel shuffle, loops over chunks, a
    graph that it does not trace), or where what it cut does not run, torch-pruning's structural pruner stands in with
    the same criterion and ratios, and the result says so.

    Args:
        model: it is not changed.
        pruner_class: nni.compression.pruning.L1NormPruner, L2NormPruner or FPGMPruner; others as far as NNI cuts.
        config_list: for the pruner.
        example_inputs: a tensor or a tuple; one batch that the model runs on.
        options: further keyword arguments of the pruner, an evaluator for one.

    Raises:
        OneXNError: the model does not run on the inputs, or neither way makes a network that runs.
    """
    with keep_state(model):
        expected = tensors_in(call_model(model.eval(), example_inputs))
    before, trains = _parameters(model), _trains(model, example_inputs)
    try:
        small = _cut_by_nni(copy.deepcopy(model), pruner_class, config_list, example_inputs, options)
        method, reason = "ModelSpeedup", ""
        _check(small, example_inputs, expected, trains)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # NNI raises classes of its own, bare assertions, and worse
        method = "torch-pruning"
        reason = f"{type(error).__name__}: {first_line(error)}"
        try:
            small = cut_by_torch_pruning(model, getattr(pruner_class, "__name__", ""), config_list, example_inputs)
        except OneXNError:
            raise
        except Exception as other:
            raise OneXNError("model", f"cannot be cut, by NNI ({reason}) or by torch-pruning ({first_line(other)})",
                             "Exclude the layers that the messages name") from other
        _check(small, example_inputs, expected, trains)
    after = _parameters(small)
    if after == before:
        raise OneXNError("config_list", "no filter can be cut: each selected layer is tied to one that is not selected",
                         "Select the layers that share its channels too, Linear ones for instance, or raise the ratio")
    return FilterCut(small, method, reason, before, after)


def _cut_by_nni(model: nn.Module, pruner_class: Callable[..., Any], config_list: list[dict[str, Any]],
                example_inputs: Any, options: dict[str, Any]) -> nn.Module:
    with warnings.catch_warnings(), quiet(), contextlib.redirect_stdout(io.StringIO()):  # it prints "0 Filter"
        warnings.simplefilter("ignore")
        from nni.compression.speedup import ModelSpeedup

        pruner = pruner_class(model.eval(), config_list, **options)
        _, masks = pruner.compress()
        # Not fold(): ModelSpeedup infers from zeros in the weights, and then cuts inconsistently.
        pruner.unwrap_model()
        with tracing_on_this_torch():
            return ModelSpeedup(model, example_inputs, masks,
                                garbage_collect_values=False).speedup_model().eval()  # new layers come in train mode


def _check(model: nn.Module, example_inputs: Any, expected: list[Tensor], trains: bool) -> None:
    """Raise OneXNError unless the cut network runs and returns as many outputs, all finite."""
    outputs = tensors_in(call_model(model, example_inputs))
    if [output.dim() for output in outputs] != [tensor.dim() for tensor in expected]:
        raise OneXNError("model", "the cut network has other outputs", "Exclude the layers that give them")
    for output, tensor in zip(outputs, expected, strict=True):
        if output.shape != tensor.shape:
            _log.warning("the cut network's output is %s where it was %s: config_list selects the layer that gives it; "
                         "exclude that one to keep every class", list(output.shape), list(tensor.shape))
    if not all(bool(torch.isfinite(output).all()) for output in outputs):
        raise OneXNError("model", "the cut network's outputs are not finite", "Prune less")
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.shape != (
                module.out_channels, module.in_channels // module.groups, *module.kernel_size):
            raise OneXNError(name, "its weight was cut otherwise than its channels", "Exclude it")


    if trains and not _trains(model, example_inputs):
        raise OneXNError("model", "the cut network does not run in train mode, where the given one does: a branch that "
                         "runs in training alone was not cut", "Take auxiliary classifiers off first")


def _trains(model: nn.Module, example_inputs: Any) -> bool:
    """It runs in train mode too; batch norm, for one, may ask for more images."""
    with keep_state(model):
        try:
            call_model(model.train(), example_inputs)
        except OneXNError:
            return False
    return True


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
