"""The emulated board, as fixtures. Where it cannot be had, its tests say so and are left out; in CI they fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from benchmarks.common.emulation.arm64_root import Arm64, arm64_machine, emulator
from benchmarks.common.emulation.cache import Unavailable
from benchmarks.common.emulation.networks import run_network


@pytest.fixture(scope="session")
def report(pytestconfig) -> Callable[[str], None]:
    """Prints a line of progress past pytest's capturing: fetching takes a while."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n[emulation] {line}", flush=True)

    return say


@pytest.fixture(scope="session")
def arm64(report) -> Iterator[Arm64]:
    """The emulated arm64 machine."""
    pytest.importorskip("tvm")
    try:
        machine = arm64_machine(report)
    except Unavailable as reason:
        leave_out(reason)
    else:
        yield machine


@pytest.fixture(scope="session")
def arm(report) -> list[str]:
    """The command that runs a static 32-bit ARM program as a Cortex-A7 would."""
    pytest.importorskip("tvm")
    try:
        return [str(emulator("arm", report)), "-cpu", "cortex-a7"]
    except Unavailable as reason:
        leave_out(reason)
        raise AssertionError("not reached") from reason


@pytest.fixture
def run_on_arm(arm64) -> Callable[..., list[np.ndarray]]:
    """`run_on_arm(library, *inputs, cpu=...)` -> outputs, through TVM's runtime on the emulated board."""
    return lambda library, *inputs, cpu="cortex-a72": run_network(arm64, library, inputs, cpu=cpu)


def leave_out(reason: Unavailable) -> None:
    """Skips the test, or fails it where CI=true: there the emulated boards must run."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run the emulated boards, and cannot: {reason}")
    pytest.skip(f"left out: {reason}")
