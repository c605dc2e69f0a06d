"""Memory for networks, in huge pages where the system has them.

A network reads its weights once per run, front to back: with pages of 4 KiB the processor looks up a new one every few
dozen vectors, and in a virtual machine each look-up costs twice. Linux gives out pages of 2 MiB, by default only to
programs that ask.
"""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

# The size of a huge page on x86-64, and on ARM with its usual small pages.
HUGE_PAGE = 2 << 20
# Less than this needs few pages of any size.
WORTH_IT = 512 << 10


def allocate(nbytes: int) -> np.ndarray:
    """So many zero bytes, aligned for any vector; the memory goes when the last array on it does.

    Pages are taken when they are first touched.
    """
    if nbytes < WORTH_IT or not hasattr(mmap, "MADV_HUGEPAGE"):
        room = np.zeros(nbytes + mmap.PAGESIZE, np.uint8)
        return _aligned(room, mmap.PAGESIZE)[:nbytes]
    whole = -(-nbytes // HUGE_PAGE) * HUGE_PAGE
    # Memory shared with children, the default, would be under other rules.
    pages = mmap.mmap(-1, whole + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages: small ones do
        pages.madvise(mmap.MADV_HUGEPAGE)
    return _aligned(np.frombuffer(pages, np.uint8), HUGE_PAGE)[:nbytes]


def _aligned(room: np.ndarray, alignment: int) -> np.ndarray:
    """The part of it that starts at a multiple of `alignment`."""
    return room[-room.__array_interface__["data"][0] % alignment:]
