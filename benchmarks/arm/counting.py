"""Instructions of one inference: an emulated process that runs it once is taken from one that runs it more often."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.emulation.apt import PrivateApt
from benchmarks.common.emulation.cache import made_once
from onexn_plugins.tvm_backend.processors import find_target

PLUGIN_SOURCE = Path(__file__).with_name("count_plugin.c")
CPU = "cortex-a72"
# Inferences beyond the first that are counted. Starting Python takes some 0.3 million instructions more or less each
# time, which is divided by this.
MORE = 10
# Libraries of the emulator that are never taken from anywhere but the running system.
SYSTEM = ("libc6", "libgcc-s1", "gcc-12-base", "gcc-14-base")


@dataclass(frozen=True)
class Counts:
    """Instructions, or their number in one inference; fma counts vector and scalar multiply-adds alike."""

    all: float
    fma: float
    loads: float
    stores: float

    def per_inference(self, single: Counts, more: int) -> Counts:
        """The difference to a process with so many inferences less, per inference."""
        return Counts(*((getattr(self, kind) - getattr(single, kind)) / more for kind in Counts.__annotations__))


@dataclass(frozen=True)
class Counter:
    """The emulator with the counting plugin.

    Attributes:
        command: what stands before an arm64 program.
        environment: what the emulator itself needs.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]

    def count(self, program: Callable[[int], Sequence[str]], environment: Mapping[str, str] | None = None,
              more: int = MORE) -> Counts:
        """Instructions of one inference.

        Args:
            program: number of inferences -> the arm64 program's command line.
            environment: what the program needs.
            more: inferences beyond the first.
        """
        single, many = (self._run(program(number), environment or {}) for number in (1, 1 + more))
        return many.per_inference(single, more)

    def _run(self, program: Sequence[str], environment: Mapping[str, str]) -> Counts:
        done = subprocess.run([*self.command, *program], env={**os.environ, **self.environment, **environment},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800, check=False)
        found = re.search(r"COUNTED all=(\d+) fma=(\d+) loads=(\d+) stores=(\d+)", done.stderr)
        if done.returncode or not found:
            raise RuntimeError(f"{program[0]} ended with {done.returncode}: {done.stderr[-500:]}")
        return Counts(*(float(number) for number in found.groups()))


def counter(cpu: str = CPU) -> Counter:
    """Fetches the emulators (12 MB; the static ones take no plugins) and builds the plugin, once.

    Raises:
        Unavailable: this system is not Debian or Ubuntu.
    """
    folder = made_once("qemu-plugins-1", _make)
    libraries = os.pathsep.join(str(path) for path in (folder / "root").glob("usr/lib/*-linux-gnu"))
    with tempfile.TemporaryDirectory(dir=folder) as build:
        plugin = Path(build) / "count.so"
        compile_plugin = ["cc", "-O2", "-shared", "-fPIC", "-o", str(plugin), str(PLUGIN_SOURCE)]
        subprocess.run(compile_plugin, check=True)
        plugin.replace(folder / "count.so")  # an emulator that runs keeps the one it has loaded
    # -U: the emulator's own libraries must not reach the emulated program.
    name = {"aarch64": "qemu-aarch64", "armv7": "qemu-arm"}[find_target(cpu).architecture]
    emulator = str(folder / "root" / "usr" / "bin" / name)
    return Counter((emulator, "-plugin", str(folder / "count.so"), "-cpu", cpu, "-U", "LD_LIBRARY_PATH"),
                   {"LD_LIBRARY_PATH": libraries, "OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1",
                    "PYTHONHASHSEED": "0"})


def _make(folder: Path) -> None:
    apt = PrivateApt(folder / "apt", "amd64")
    apt.unpack([name for name in apt.needs(["qemu-user"]) if name not in SYSTEM], folder / "root")
    shutil.rmtree(folder / "apt")
