"""Memory in huge pages where the system has them, and memory all the same where it has not."""

from __future__ import annotations

import gc
import mmap
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from onexn_plugins.tvm_backend.output import huge_pages
from onexn_plugins.tvm_backend.output.huge_pages import HUGE_PAGE, WORTH_IT, allocate

SIZES = [1, 64, 5000, WORTH_IT - 1, WORTH_IT, HUGE_PAGE, 3 * HUGE_PAGE + 17]
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def check(size: int) -> None:
    memory = allocate(size)
    assert memory.shape == (size,)
    assert memory.dtype == np.uint8
    assert memory.__array_interface__["data"][0] % 64 == 0
    assert not memory.any()
    memory[:] = 7
    assert int(memory.sum(dtype=np.int64)) == 7 * size


@pytest.mark.parametrize("size", SIZES)
def test_memory_is_zero_aligned_and_writable(size: int) -> None:
    check(size)


@pytest.mark.parametrize("size", SIZES)
def test_a_system_without_huge_pages(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    check(size)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="there is no such request to refuse")
def test_a_kernel_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 12345)
    check(HUGE_PAGE)


def pages_of(memory: np.ndarray) -> dict[str, int]:
    """What Linux says of the mapping that the array lies in, in KiB."""
    address, found = memory.__array_interface__["data"][0], {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= address < end
        elif inside and rest[-1:] == ["kB"]:
            found[first.rstrip(":")] = int(rest[0])
    return found


@pytest.mark.skipif(not ENABLED.exists() or "[never]" in ENABLED.read_text(), reason="Linux gives out no huge pages")
def test_it_lies_in_huge_pages() -> None:
    memory = allocate(2 * HUGE_PAGE + 5)
    memory[:] = 1
    assert pages_of(memory)["AnonHugePages"] >= HUGE_PAGE >> 10


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of memory")
def test_a_small_one_costs_no_huge_page() -> None:
    before = huge_pages_in_use()
    kept = [allocate(64 << 10) for _ in range(16)]
    for memory in kept:
        memory[:] = 1
    assert huge_pages_in_use() - before < 16 * HUGE_PAGE >> 10


def huge_pages_in_use() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in rollup if line.startswith("AnonHugePages"))


def test_it_goes_with_the_last_array_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Pages(mmap.mmap):
        def __new__(cls, *arguments: int, **options: int) -> Pages:
            pages = super().__new__(cls, *arguments, **options)
            made.append(weakref.ref(pages))
            return pages

    if not hasattr(mmap, "MADV_HUGEPAGE"):
        pytest.skip("the memory is NumPy's own")
    monkeypatch.setattr(huge_pages.mmap, "mmap", Pages)
    part = allocate(2 * HUGE_PAGE)[HUGE_PAGE:]
    gc.collect()
    assert made[0]() is not None
    part[:] = 1
    del part
    gc.collect()
    assert made[0]() is None
