"""An arm64 machine in a folder: an emulator, Python, its libraries and TVM's runtime for it, fetched once.

No root rights, no chroot and no binfmt_misc: `qemu-aarch64` runs one arm64 program, and finds its libraries under the
folder. The recipe was measured on Debian 12; names that differ between distributions are derived, not listed.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.emulation.apt import PrivateApt, run
from benchmarks.common.emulation.cache import Unavailable, is_made, made_once

RECIPE = 1  # counts up when what is fetched changes
WANTED = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1")
# Of all that those depend on, what Python and TVM's runtime really load; t64 is the 64-bit time_t transition's suffix.
LOADED = re.compile(
    r"(libc6|libgcc-s1|libstdc\+\+6|libgomp1|libexpat1|zlib1g|libffi\d+|libssl\d+|liblzma5|libbz2-1\.0|libuuid1|"
    r"libpython3\.\d+-(minimal|stdlib)|python3\.\d+-minimal)(t64)?"
)
# pip does not take an older manylinux wheel for a newer platform by itself.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
PACKAGES = ("apache-tvm", "apache-tvm-ffi")
SMOKE_TEST = "import numpy, tvm; from tvm.runtime.vm import VirtualMachine; from tvm.exec import rpc_server"


@dataclass(frozen=True)
class Arm64:
    """The machine: `run` starts its Python under the emulator."""

    emulator: Path
    root: Path
    packages: Path

    def command(self, arguments: Sequence[str], *, cpu: str = "cortex-a72") -> list[str]:
        """The command line that runs its Python with these arguments."""
        return [str(self.emulator), "-cpu", cpu, self.python, *arguments]

    @property
    def cores(self) -> frozenset[str]:
        """The cores that the emulator has by name."""
        # The emulator ends with 1 after help, as after any command line that names no program.
        told = subprocess.run([str(self.emulator), "-cpu", "help"], capture_output=True, text=True, check=False)
        return frozenset(told.stdout.split())

    @property
    def python(self) -> str:
        """Its Python, for any emulator."""
        return str(next((self.root / "usr" / "bin").glob("python3.*")))

    @property
    def environment(self) -> dict[str, str]:
        """What its Python needs to find its libraries, instead of this process's own variables."""
        return {
            "HOME": os.environ.get("HOME", "/"),
            "PATH": os.environ.get("PATH", os.defpath),
            "QEMU_LD_PREFIX": str(self.root),
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": str(self.packages),
        }

    def run(
        self,
        arguments: Sequence[str],
        *,
        cpu: str = "cortex-a72",
        extra: Mapping[str, str] | None = None,
        seconds: float = 300,
    ) -> str:
        """What its Python printed.

        Errors:
            RuntimeError: it failed, with what it said.
        """
        done = subprocess.run(
            self.command(arguments, cpu=cpu),
            env={**self.environment, **(extra or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the emulated process ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


def arm64_machine(report: Callable[[str], None] = print) -> Arm64:
    """The machine, made on the first call of a user (about 190 MB to fetch), reused on every later one.

    Errors:
        Unavailable: this system is not Debian or Ubuntu, or something cannot be fetched.
    """
    if sys.platform != "linux":
        raise Unavailable(f"the emulator runs on Linux, this is {sys.platform}")
    folder = made_once(_machine_name(), lambda new: _make(new, report))
    return _machine(folder, emulator("aarch64", report))


def fetched_machine() -> Arm64 | None:
    """The machine where an earlier `arm64_machine` made it; None elsewhere, and nothing is fetched."""
    if sys.platform != "linux" or not is_made(_machine_name()):
        return None
    return arm64_machine()


def emulator(architecture: str, report: Callable[[str], None] = print) -> Path:
    """qemu's user-mode emulator for "aarch64" or "arm": the system's own, or fetched once (60 MB).

    Errors:
        Unavailable: there is none, and none can be fetched.
    """
    installed = shutil.which(f"qemu-{architecture}-static") or shutil.which(f"qemu-{architecture}")
    if installed:
        return Path(installed)
    folder = made_once(f"qemu-{_system()}-{RECIPE}", lambda new: _fetch_emulators(new, report))
    return folder / f"qemu-{architecture}"


def _system() -> str:
    """The distribution, as "debian12"."""
    release = platform.freedesktop_os_release()
    return release.get("ID", "linux") + release.get("VERSION_ID", "")


def _machine_name() -> str:
    return f"arm64-{_system()}-tvm{importlib.metadata.version('apache-tvm')}-{RECIPE}"


def _machine(folder: Path, qemu: Path) -> Arm64:
    return Arm64(qemu, folder / "root", folder / "packages")


def _fetch_emulators(folder: Path, report: Callable[[str], None]) -> None:
    report("fetching qemu's user-mode emulators (60 MB)")
    started = time.monotonic()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
    if machine is None:
        raise Unavailable(f"no emulator is known for {platform.machine()}")
    apt = PrivateApt(folder / "apt", machine)
    # In Debian 13 qemu-user itself is static and qemu-user-static empty; before, qemu-user is dynamic.
    for package, suffix in (("qemu-user-static", "-static"), ("qemu-user", "")):
        unpacked = folder / package
        apt.unpack([package], unpacked)
        for name in ("qemu-aarch64", "qemu-arm"):
            binary = unpacked / "usr" / "bin" / (name + suffix)
            if binary.is_file() and not binary.is_symlink() and not (folder / name).exists():
                binary.rename(folder / name)
        shutil.rmtree(unpacked)
        if (folder / "qemu-aarch64").exists():
            break
    else:
        raise Unavailable("neither qemu-user-static nor qemu-user holds a qemu-aarch64")
    shutil.rmtree(folder / "apt")
    report(f"the emulators are there ({time.monotonic() - started:.0f} s)")


def _make(folder: Path, report: Callable[[str], None]) -> None:
    """Fills the machine's folder, and has it import TVM before anyone believes in it."""
    started = time.monotonic()
    qemu = emulator("aarch64", report)
    report("fetching arm64 Python and libraries (20 MB)")
    apt = PrivateApt(folder / "apt", "arm64")
    packages = [name for name in apt.needs(WANTED) if LOADED.fullmatch(name)]
    apt.unpack(packages, folder / "root")
    shutil.rmtree(folder / "apt")
    if not (folder / "root" / "lib").exists():  # a merged /usr, whose links another package makes
        (folder / "root" / "lib").symlink_to("usr/lib")
    minor = max(int(found[1]) for name in packages if (found := re.match(r"python3\.(\d+)-minimal", name)))
    report(f"fetching TVM and NumPy for arm64 Python 3.{minor} (115 MB)")
    _fetch_wheels(folder, f"3.{minor}")
    report("starting TVM in the emulator for the first time")
    _machine(folder, qemu).run(["-c", SMOKE_TEST], seconds=600)
    report(f"the arm64 machine is there ({time.monotonic() - started:.0f} s)")


def _fetch_wheels(folder: Path, python: str) -> None:
    """TVM's runtime and what it needs, for that Python; the compiler, 240 MB of its wheel, stays out."""
    wheels = folder / "wheels"
    wheels.mkdir()
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(wheels)]
    run([*pip, "--python-version", python, "--implementation", "cp", *platforms, *wanted, "apache-tvm[rpc]"], folder)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if not name.startswith(("tvm/3rdparty/", "tvm/src/"))]
            archive.extractall(folder / "packages", [name for name in members if "libtvm_compiler" not in name])
    shutil.rmtree(wheels)
