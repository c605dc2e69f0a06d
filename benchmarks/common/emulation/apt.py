"""Debian packages of any architecture, fetched and unpacked into a folder without root rights.

apt keeps its lists and its idea of the architecture in a private folder, so that nothing of the system's is read but
its sources and keys, and nothing of it is changed.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.emulation.cache import Unavailable

SECONDS = 900  # no single step takes longer on a line worth trying
# Ubuntu's main archive has no arm64; its ports archive has.
UBUNTU_PORTS = "deb [arch=arm64] http://ports.ubuntu.com/ubuntu-ports {suite} main universe\n"
NO_OTHERS = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]


class PrivateApt:
    """apt for one architecture ("amd64", "arm64"), with all its state under `folder`."""

    def __init__(self, folder: Path, architecture: str) -> None:
        for tool in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise Unavailable(f"this system has no {tool}: only Debian and Ubuntu are supported")
        (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",
            "Acquire::Retries": "2",
            "Debug::NoLocking": "1",
            "Dir::Cache": folder / "cache",
            "Dir::State": folder,
            "Dir::State::Lists": folder / "lists",
            "Dir::State::status": "/dev/null",
        }
        sources = foreign_sources(architecture, platform.freedesktop_os_release())
        if sources:
            (folder / "sources.list").write_text(sources)
            settings |= {"Dir::Etc::sourcelist": folder / "sources.list", "Dir::Etc::sourceparts": "/dev/null"}
        self._settings = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        self._run(["apt-get", "update"], folder)

    def needs(self, packages: Sequence[str]) -> list[str]:
        """Every package these depend on, themselves among them."""
        said = self._run(["apt-cache", "depends", "--recurse", *NO_OTHERS, *packages], Path.cwd())
        return sorted({line for line in said.splitlines() if re.match(r"[a-z0-9]", line)})

    def unpack(self, packages: Sequence[str], into: Path) -> None:
        """Downloads the packages and unpacks their files under `into`."""
        debs = into.parent / f"{into.name}.debs"
        debs.mkdir()
        self._run(["apt-get", "download", *packages], debs)
        for deb in sorted(debs.glob("*.deb")):
            self._run(["dpkg-deb", "-x", str(deb), str(into)], debs)
        shutil.rmtree(debs)

    def _run(self, command: list[str], folder: Path) -> str:
        settings = [] if command[0] == "dpkg-deb" else self._settings
        return run([command[0], *settings, *command[1:]], folder)


def foreign_sources(architecture: str, os_release: dict[str, str]) -> str | None:
    """apt's sources for another architecture where the system's own do not have it; None where they do."""
    if os_release.get("ID") != "ubuntu" or architecture != "arm64" or platform.machine() == "aarch64":
        return None
    codename = os_release["VERSION_CODENAME"]
    return "".join(UBUNTU_PORTS.format(suite=codename + pocket) for pocket in ("", "-updates", "-security"))


def run(command: Sequence[str], folder: Path) -> str:
    """What a command printed; `Unavailable` with its last words if it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} took longer than {SECONDS} s") from error
    if done.returncode:
        raise Unavailable(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout
