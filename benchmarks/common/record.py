"""Where and with what numbers were made: command, machine, versions, commit."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torch-pruning", "nni", "apache-tvm", "onnx", "onnxruntime", "numpy", "scikit-learn")
VECTOR_FLAGS = ("sse4_2", "avx2", "fma", "avx512f", "avx512_vnni", "neon", "asimd")


def record(command: str, packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """What stands beside every published number, as plain values.

    Args:
        command: what a reader types to get the numbers again.
        packages: distributions whose versions matter; one that is absent is recorded as None.
    """
    return {
        "command": command,
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
    }


def machine() -> dict[str, Any]:
    """The processor as the operating system names it, and how busy it was."""
    info = _processor()
    flags = info.get("flags", info.get("Features", "")).split()
    return {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "vector_units": [flag for flag in VECTOR_FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": round(os.getloadavg()[0], 2),
    }


def commit() -> str | None:
    """The commit this checkout is at, with "+changes" where files differ from it; None outside a git checkout.

    Results that a benchmark has just written are no changes: nothing is made from them.
    """
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, check=True, capture_output=True,
                              text=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+changes" if git("status", "--porcelain", ":(top)", ":(top,exclude)benchmarks/*/results/*") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def command_line(module: str) -> str:
    """`python -m MODULE ARGUMENTS` as it was typed, without the paths of this machine's interpreter."""
    return " ".join(["python", "-m", module, *sys.argv[1:]])


def _processor() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
