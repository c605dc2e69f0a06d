"""The proof that moving channels leaves a model's function as it was.

Before and after are compared on a copy in float64 whose parameters were made generic: jittered, so that no two
channels are alike and none is dead, and calibrated on data, so that the signal reaches the output. Rounding then
accounts for about 1e-15 of the output; the weakest deliberate mistake found changed it by 8e-6. The bar of 1e-9
separates them. A float32 check on the model's own weights has no such power: it accepted 139 of 194 mistakes.

Two probes differ in their parameters and in the sign and scale of their inputs, so that what depends on values
shows more than one side. No number of probes shows all of them: see `Found.objection` in tracing/components.py.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.inputs import map_tensors, tensors_in
from onexn_plugins.rearrangement.apply import Move, apply_moves
from onexn_plugins.rearrangement.branches import call_branches
from onexn_plugins.rearrangement.double import in_double

BAR = 1e-9
PROBES = (1.0, -3.0)  # what the inputs of each probe are multiplied with; each costs three runs of the model


@dataclass(frozen=True)
class Proof:
    """The outcome.

    Attributes:
        max_error: largest relative change of any output under all moves that passed.
        passed: indices of the moves that leave the function as it was, together and each by itself.
        failed: index of every other move -> its relative change of the output.
    """

    max_error: float
    passed: tuple[int, ...]
    failed: dict[int, float]


def prove(model: nn.Module, example_inputs: Any, moves: Sequence[Move], *, seed: int = 0) -> Proof:
    """Find the moves that leave the model's function unchanged; those that do not are isolated by bisection.

    Only a copy of the model is moved and run, without the model's hooks.

    Args:
        model: any eager model; its mode, hooks, device, dtype, requires_grad and the random state stay as they are.
        example_inputs: a tensor, tuple or dict; floating-point inputs are jittered.
        moves: what is to be proved.
        seed: of the jitter.

    Raises:
        OneXNError: the model cannot be copied, run in float64 or compared.
    """
    failed: dict[int, float] = {}
    passed, max_error = list(range(len(moves))), 0.0
    for number, scale in enumerate(PROBES):
        probe = Probe(model, example_inputs, seed=seed + number, scale=scale)
        error, wrong = isolate(probe, moves, passed)
        failed |= wrong
        passed = [index for index in passed if index not in wrong]
        if wrong and passed:
            error = probe.error([moves[index] for index in passed])
        if error >= BAR and passed:  # each is right by itself but not together: none is proved
            return Proof(0.0, (), {index: failed.get(index, error) for index in range(len(moves))})
        max_error = max(max_error, error if passed else 0.0)
        if not passed:
            break
        del probe  # or two copies of the model would be held while the next one is made
    return Proof(max_error if passed else 0.0, tuple(passed), failed)


def isolate(probe: Probe, moves: Sequence[Move], indices: list[int]) -> tuple[float, dict[int, float]]:
    """The change under all these moves together, and by bisection {index: change} of those that are wrong."""
    error = probe.error([moves[index] for index in indices]) if indices else 0.0
    if error < BAR:
        return error, {}
    if len(indices) == 1:
        return error, {indices[0]: error}
    middle = len(indices) // 2
    return error, isolate(probe, moves, indices[:middle])[1] | isolate(probe, moves, indices[middle:])[1]


class Probe:
    """A generic float64 copy of a model with inputs and the outputs it has for them.

    Args:
        model, example_inputs: as in `prove`.
        seed: of the jitter.
        scale: the inputs are multiplied with it, unless the model gives nothing finite for them then.
    """

    def __init__(self, model: nn.Module, example_inputs: Any, *, seed: int = 0, scale: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._seed = seed
        self._moved: list[Move] = []
        self.model = clean_copy(model).double().eval()
        inputs = _probe_inputs(example_inputs, generator)
        jitter(self.model, generator)
        with _calibrating(self.model, generator):
            self._run(inputs)
        self._inputs = map_tensors(lambda tensor: tensor * scale if tensor.is_floating_point() else tensor, inputs)
        try:
            self._reference = self._run(self._inputs)
        except OneXNError:
            self._reference = []
        if not self._reference or not _finite(self._reference):
            self._inputs, self._reference = inputs, self._run(inputs)
        if not self._reference:
            raise OneXNError("model", "its outputs hold no floating-point values, so that nothing can be compared",
                             "Let forward return what it computes before rounding or argmax")
        if not _finite(self._reference):
            raise OneXNError("model", "its outputs are not finite on the example inputs",
                             "Check the weights, and pass example inputs like those the model was trained on")

    def error(self, moves: Sequence[Move]) -> float:
        """Relative change of the outputs under the moves; those of the call before are taken back first.

        Infinite where the model fails, or has layers that run in training alone and could not be run.
        """
        if self._idle and moves:
            return float("inf")
        apply_moves(self.model, [move.inverse() for move in reversed(self._moved)])
        apply_moves(self.model, moves)
        self._moved = list(moves)
        try:
            outputs = self._run(self._inputs)
        except OneXNError:
            return float("inf")
        return relative_difference(self._reference, outputs)

    def _run(self, inputs: Any) -> list[Tensor]:
        with torch.random.fork_rng(), in_double():
            torch.manual_seed(self._seed)
            outputs, self._idle = call_branches(self.model, inputs)
        return [tensor.double() for tensor in tensors_in(outputs) if tensor.is_floating_point()]


def _finite(outputs: Sequence[Tensor]) -> bool:
    return all(bool(torch.isfinite(output).all()) for output in outputs)


def relative_difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Largest |a - b| / max |a| over pairs of tensors; infinite where they do not correspond."""
    if [tensor.shape for tensor in one] != [tensor.shape for tensor in other]:
        return float("inf")
    worst = 0.0
    for before, after in zip(one, other, strict=True):
        if before.numel():
            error = float((before - after).abs().max() / before.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
            worst = max(worst, error if error == error else float("inf"))
    return worst


def clean_copy(model: nn.Module) -> nn.Module:
    """A deep copy without the model's hooks, which may write to files or loggers.

    Raises:
        OneXNError: the model cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for attribute, value in vars(module).items():
            if attribute.endswith("_hooks") or "_hooks_" in attribute:
                memo[id(value)] = OrderedDict()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise OneXNError("model", f"cannot be copied ({type(error).__name__}: {first_line(error)[:120]})",
                         "Keep handles, locks and computed tensors out of the module's attributes") from error


def jitter(model: nn.Module, generator: torch.Generator) -> None:
    """Make every float parameter and buffer generic: no zeros, no two equal channels, variances positive.

    A buffer of one number that is not zero carries no channels and stays: it may be the exponent of a power.
    """
    constants = {name for name, tensor in model.named_buffers() if tensor.numel() == 1 and bool(tensor != 0)}
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point() or tensor.numel() == 0 or name in constants:
                continue
            if tensor.dim() >= 2 and tensor.numel() > tensor.shape[0] and "running_var" not in name:
                spread = tensor.std().nan_to_num(0.0).clamp_min(0.02)
                # In place and one draw at a time, in float32: the tensor may be large.
                tensor.mul_(torch.rand(tensor.shape, generator=generator).add_(0.5).to(tensor.device))
                tensor.add_(torch.randn(tensor.shape, generator=generator).mul_(spread * 0.3).to(tensor.device))
                continue
            uniform = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
            if "running_var" in name:
                tensor.copy_(uniform + 0.5)
            else:
                tensor.add_((uniform - 0.5) * 0.6)


@contextmanager
def _calibrating(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """While the model runs once: outputs of weighted layers get unit deviation, norms the statistics of the data."""
    done: set[nn.Module] = set()

    def scale_output(module: nn.Module, inputs: Any, output: Any) -> Any:
        if module in done or not isinstance(output, Tensor):
            return None
        done.add(module)
        deviation = output.std().nan_to_num(1.0).clamp_min(1e-6)
        for parameter in (module.weight, module.bias):
            if isinstance(parameter, Tensor):
                parameter.detach().div_(deviation)
        return output / deviation

    def take_statistics(module: nn.Module, inputs: Any) -> None:
        if module in done or not isinstance(module.running_mean, Tensor) or not isinstance(module.running_var, Tensor):
            return
        done.add(module)
        deviation = inputs[0].std().nan_to_num(1.0).clamp_min(1e-6)
        for statistic, centre, width in ((module.running_mean, inputs[0].mean(), deviation),
                                         (module.running_var, deviation**2, deviation**2)):
            noise = torch.rand(statistic.shape, generator=generator, dtype=torch.float64).to(statistic.device) - 0.5
            statistic.copy_(centre + noise * width)

    handles = []
    for module in model.modules():
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            handles.append(module.register_forward_hook(scale_output))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            handles.append(module.register_forward_pre_hook(take_statistics))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _probe_inputs(example_inputs: Any, generator: torch.Generator) -> Any:
    """Floating-point inputs in float64 with noise of their own deviation: constant examples would show nothing."""

    def generic(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        values = tensor.detach().double()
        deviation = values.std().nan_to_num(0.0) if values.numel() > 1 else values.new_zeros(())
        noise = torch.randn(values.shape, generator=generator, dtype=torch.float64).to(values.device)
        return values + noise * torch.where(deviation > 0, deviation, torch.ones_like(deviation))

    return map_tensors(generic, example_inputs)
