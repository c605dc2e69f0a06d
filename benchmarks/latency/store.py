"""Exported, converted and compiled networks, kept from run to run. A name holds a hash of all that a thing depends on,
so nothing old is ever taken for new, and a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.latency import networks, processes
from benchmarks.latency.engines import OURS, PEAK, engine
from benchmarks.latency.environments import ROOT, Environments
from benchmarks.latency.networks import Exported
from benchmarks.latency.parts import Contender, Variant
from onexn_plugins.errors import OneXNError
from onexn_plugins.progress import Progress

PACKAGE = ROOT / "onexn_plugins"
# Folders of the package that have no part in pruning and export as they are done here.
ELSEWHERE = {"tvm_backend", "rearrangement", "nni", "cli", "report"}
PREPARED = "prepared.txt"
CONVERSION_SECONDS = 560.0


class Store:
    """
    Args:
        environments: of the engines; the things are kept beside them.
    """

    def __init__(self, environments: Environments) -> None:
        self._environments, self._folder = environments, environments.folder / "networks"
        package = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".json", ".c", ".h")]
        self._compiler = _hash(package)
        exporter = [path for path in package if ELSEWHERE.isdisjoint(path.relative_to(PACKAGE).parts)]
        self._exporter = _hash([*exporter, Path(networks.__file__)], torch.__version__)

    def exported(self, variant: Variant) -> Exported:
        """The network's folder, made if it is not there."""
        name = f"{variant.network}-1x{variant.block_size}-{variant.ratio:g}-{self._exporter}"
        return Exported(self._once(name, lambda folder: networks.export(variant, folder)))

    def prepared(self, contender: Contender, version: str) -> Path:
        """What the engine loads, made if it is not there.

        Raises:
            OneXNError: the engine cannot translate the network.
        """
        exported, name = self.exported(contender.variant), contender.engine
        source = [Path(str(engine(name).__file__))]
        if name == PEAK:
            key = _hash([*source, source[0].with_suffix(".c")])
        else:
            key = _hash(source, exported.content, version, self._compiler if name == OURS else "")

        def make(folder: Path) -> None:
            python = self._environments.python(name)
            path = processes.prepare(name, python, exported.onnx, folder, CONVERSION_SECONDS)
            (folder / PREPARED).write_text(os.path.relpath(path, folder), encoding="utf-8")

        folder = self._once(f"{name}-{key}", make)
        return Path(os.path.normpath(folder / (folder / PREPARED).read_text(encoding="utf-8")))

    def prepare_all(self, contenders: Iterable[Contender], versions: dict[str, str],
                    progress: Progress) -> tuple[dict[Contender, Path], dict[Contender, str]]:
        """All whose engine is there, as many at a time as there are cores: what is ready, and why the rest is not."""
        chosen = [contender for contender in contenders if contender.engine in versions]
        for variant in dict.fromkeys(contender.variant for contender in chosen):
            progress.step(f"export {variant.title}")
            self.exported(variant)

        def attempt(contender: Contender) -> Path | OneXNError:
            progress.step(f"prepare {contender.title}")
            try:
                return self.prepared(contender, versions[contender.engine])
            except OneXNError as error:
                return error

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        with ThreadPoolExecutor(cores) as pool:
            results = dict(zip(chosen, pool.map(attempt, chosen), strict=True))
        failed = {contender: result.reason for contender, result in results.items()
                  if isinstance(result, OneXNError)}
        return {contender: result for contender, result in results.items() if isinstance(result, Path)}, failed

    def _once(self, name: str, make: Callable[[Path], object]) -> Path:
        """A folder of that name, filled by `make`: whole or not there."""
        home = self._folder / name
        if not home.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(dir=self._folder, prefix=f".{name}."))
            try:
                make(aside)
                os.replace(aside, home)
            except OSError:
                if not home.is_dir():  # else another run was faster
                    raise
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        return home


def _hash(files: Iterable[Path], *words: str) -> str:
    sha = hashlib.sha256(repr(words).encode())
    for path in sorted(files):
        sha.update(path.name.encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()[:16]
