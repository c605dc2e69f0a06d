"""A copy of the model on its way through repair, and what is known about it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.inputs import call_model, map_tensors
from onexn_plugins.layers import PrunableLayer, pattern_of
from onexn_plugins.measurement import measure
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.rearrangement import applied_moves, apply_moves
from onexn_plugins.rearrangement.proof import clean_copy
from onexn_plugins.repair.divergence import Divergence, divergence
from onexn_plugins.repair.images import Images
from onexn_plugins.repair.importance import channel_importance
from onexn_plugins.repair.options import Context
from onexn_plugins.repair.result import Repaired, Step
from onexn_plugins.repair.resume import Resume
from onexn_plugins.repair.surroundings import Surroundings
from onexn_plugins.repair.survey import Progress

JUDGES = 120  # calibration images that every step is judged on


class Work:
    """A copy of the model on its way; the model itself is changed at the very end.

    Attributes:
        student: the copy that is pruned.
        dense: what it should do.
        depthwise: layers between those that are pruned, which lose nothing and are corrected with them.
        keep: layer -> bool [block_rows, in / groups].
        around: layer -> what stands behind it.
        whole: layer -> its weight before blocks were removed.
        importance: layer -> weights of its output channels' squared errors.
        gathered: are its channels where blocks lose least?
        result: so far.
    """

    def __init__(self, model: nn.Module, images: Images, names: list[str], depthwise: list[str], block_size: int,
                 seed: int, resume: Resume, progress: Progress) -> None:
        self.images, self.names, self.depthwise = images, names, depthwise
        self.block_size, self.seed = block_size, seed
        self.report, self.resume = progress, resume
        self.student, self.dense = fast(clean_copy(model).eval()), fast(clean_copy(model).eval())
        self.keep: dict[str, Tensor] = {}
        self.result = Repaired(images=images.count, skipped=images.skipped)
        self.context = Context(model)
        self.example = images.first
        self.judges = images.some(JUDGES)
        resume.load(self.student)
        if resume.stage:
            apply_moves(self.dense, applied_moves(self.student)[len(applied_moves(model)):])
        self.around: dict[str, Surroundings] = {}
        self.whole: dict[str, Tensor] = {}
        self.importance: dict[str, Tensor] = {}
        self.gathered = False
        self._expected: list[Any] | None = None

    @property
    def layers(self) -> dict[str, PrunableLayer]:
        """The layers to prune, of the student."""
        return {name: self.student.get_submodule(name) for name in self.names}  # type: ignore[misc]

    @property
    def patterns(self) -> dict[str, BlockPattern]:
        """The blocks of each layer."""
        return {name: pattern_of(layer, self.block_size, name) for name, layer in self.layers.items()}

    def judge(self, name: str, started: float, before: Mapping[str, Tensor] | None = None,
              seconds: float | None = None) -> None:
        """Add a step to the result; where it made things worse, go back to the values before it."""
        seconds = time.monotonic() - started if seconds is None else seconds
        found = divergence(self.expected, self.outputs(self.student))
        macs = measure(self.student, self.block_size, self.example).macs or 0
        last = next((step for step in reversed(self.result.steps) if step.kept), None)
        kept = before is None or last is None or not worse(found, last)
        if not kept and before is not None:
            restore(self.student, before)
        self.result.steps.append(Step(name, found.kl, found.agreement, macs, seconds, kept))

    @property
    def expected(self) -> list[Any]:
        """What the dense network gives on the judging images."""
        if self._expected is None:
            self._expected = self.outputs(self.dense)
        return self._expected

    def weigh(self) -> None:
        """Find what each output channel of the layers means to the network's outputs."""
        self.report(0, 1, "importance of channels")
        self.importance = channel_importance(self.student, self.images, self.layers, seed=self.seed,
                                             note=self.result.notes.append)

    def outputs(self, model: nn.Module) -> list[Any]:
        """Of a model on the judging images."""
        with torch.no_grad(), self.context():
            return [map_tensors(_plain, call_model(model, batch)) for batch in self.judges]

    def save(self, stage: str, values: dict[str, Any]) -> None:
        """Write the checkpoint: this stage is finished."""
        self.resume.save(self.student, stage, values | {
            "steps": [vars(step) for step in self.result.steps]})

    def take(self, values: Mapping[str, Any]) -> None:
        """The result as the checkpoint holds it."""
        self.result.ratios = dict(values["ratios"])
        self.result.steps = [Step(**step) for step in values["steps"]]


def worse(found: Divergence, last: Step) -> bool:
    """Is it further from the dense network, by either measure?

    Re-estimated norms, for one, can lower the KL, which hangs on the scale of the outputs, and turn many first classes.
    """
    return found.kl > last.kl or (found.agreement or 0.0) < (last.agreement or 0.0)


def fast(model: nn.Module) -> nn.Module:
    """In the order of numbers in memory in which float32 convolutions are faster on CPUs."""
    parameters = list(model.parameters())
    if parameters and all(each.device.type == "cpu" and each.dtype == torch.float32 for each in parameters):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def values(model: nn.Module) -> dict[str, Tensor]:
    """A copy of everything in its state."""
    return {name: value.detach().clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def restore(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give it these values again."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name in values:
                value.copy_(values[name])


def _plain(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
