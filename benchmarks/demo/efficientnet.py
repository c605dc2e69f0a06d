"""EfficientNet-Lite0 through the whole method: the stages and the rows of its table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from benchmarks.demo import compiled, emulated, photos, steps
from benchmarks.demo.settings import Settings
from benchmarks.demo.steps import Contender
from onexn_plugins.progress import Progress, Stage
from onexn_plugins.report.cells import Cell
from onexn_plugins.timing import interleave

HOST, ARM = "host", "cortex-a72"
PEER = "onnxruntime"


class EfficientNet:
    """
    Attributes:
        stages: to be run in order; each fills columns of the rows or raises.
        contenders: the dense network first.
        arm_note: what was done about Cortex-A72.
        photo_note: how top-1 was measured; empty where it was not.
    """

    def __init__(self, settings: Settings, folder: Path, data: Path | None) -> None:
        self.settings, self.folder, self.data = settings, folder, data
        size = settings.resolution
        self.example = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        self.contenders: list[Contender] = []
        self.runners: dict[str, compiled.Runner] = {}
        self.arm_note = self.photo_note = ""
        self.stages: list[Stage] = [
            ("EfficientNet-Lite0: load its ImageNet weights", self._load),
            ("Rearrange its channels, prove that the function stays", self._rearrange),
            ("Prune through torch-pruning and through NNI, compare the masks", self._prune),
            *([("Score the networks on photos", self._score)] if data else []),
            ("Export to ONNX", self._export),
            ("Compile for this machine, compare with torch", self._compile),
            (f"Cross-compile for {ARM}, compare with torch under emulation", self._cross_compile),
            ("Latency of EfficientNet-Lite0, interleaved with ONNX Runtime", self._time),
        ]

    @property
    def rows(self) -> list[dict[str, Cell]]:
        return [{"name": contender.name, **contender.row} for contender in self.contenders]

    def _load(self, progress: Progress) -> None:
        if self.data:
            self.photos = photos.Photos.find(self.data, self.settings.resolution)
        self.contenders = steps.contenders(steps.load(), self.settings)

    def _rearrange(self, progress: Progress) -> None:
        for contender in self._each(progress, pruned=True):
            result = steps.rearranged(contender, self.example, self.settings.method)
            progress.say(f"{contender.name}: L1 kept {result.retained_before:.3f} -> {result.retained_after:.3f}, "
                         f"proof error {result.max_error:.1e}, {len(result.refused)} layers refused")

    def _prune(self, progress: Progress) -> None:
        for contender in self._each(progress, pruned=True):
            count = steps.pruned_by_both(contender, self.example)
            progress.say(f"{contender.name}: {count} masks, bit for bit the same through both")

    def _score(self, progress: Progress) -> None:
        for contender in self._each(progress):
            contender.row["top1"] = photos.top1(contender.model, self.photos, progress.step)
        self.photo_note = self.photos.note

    def _export(self, progress: Progress) -> None:
        for contender in self._each(progress):
            steps.exported(contender, self.example, self.folder)

    def _compile(self, progress: Progress) -> None:
        for contender in self._each(progress):
            module, saved = compiled.compiled(contender.onnx, self.folder, HOST)
            run = self.runners[contender.name] = compiled.runner(module)
            difference = compiled.checked_difference(f"{contender.name} on {HOST}", contender.reference,
                                                     run(self.example.numpy()))
            contender.row |= {"host_difference": difference, "host_bytes": compiled.bytes_of(saved),
                              "sparse_layers": compiled.layers_sparse(module)}
            progress.say(f"{contender.name}: differs from torch by {difference:.1e} of the output's scale")

    def _cross_compile(self, progress: Progress) -> None:
        run, self.arm_note = emulated.find(ARM)
        progress.say(self.arm_note)
        for contender in self._each(progress):
            _, saved = compiled.compiled(contender.onnx, self.folder, ARM)
            contender.row["arm_bytes"] = compiled.bytes_of(saved)
            if run:
                contender.row["arm_difference"] = compiled.checked_difference(
                    f"{contender.name} on {ARM}", contender.reference, run(saved, self.example.numpy()))

    def _time(self, progress: Progress) -> None:
        array = self.example.numpy()
        runners = self.runners | {PEER: compiled.onnxruntime_runner(self.contenders[0].onnx)}
        timings = interleave({name: partial(run, array) for name, run in runners.items()},
                             rounds=self.settings.rounds, progress=progress.rounds)
        for contender in self.contenders:
            speedup = timings.speedup(contender.name, PEER)
            contender.row |= {"onnxruntime_ms": asdict(timings.milliseconds(PEER)), "speedup": asdict(speedup),
                              "ours_ms": asdict(timings.milliseconds(contender.name))}
            progress.say(f"{contender.name}: {speedup.value:.2f} times as fast as ONNX Runtime dense")

    def _each(self, progress: Progress, pruned: bool = False) -> Iterator[Contender]:
        """The contenders (only the pruned ones), each announced."""
        for contender in self.contenders[pruned:]:
            progress.step(contender.name)
            yield contender
