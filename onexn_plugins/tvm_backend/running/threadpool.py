"""TVM's pool of worker threads: as many as a network was compiled for, on whatever processors the process may use.

Left to itself the pool is as large as half the processors, and sets the affinity of the calling thread: configured
for one worker it binds a user's whole program to processor 0, together with every thread the program starts later.
Both are settled here; who wants threads bound sets TVM_BIND_THREADS=1. The pool belongs to the calling thread, so each
thread that runs networks configures its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import tvm

# kSpecifyThreadShareAllCore of TVM's threading backend: the one mode in which a pool can be made as large as wanted.
_SHARE_ALL = -3
_BIND = "TVM_BIND_THREADS"

_configured = threading.local()
_environment = threading.Lock()


def use_threads(threads: int) -> None:
    """Have the calling thread's parallel loops run on so many threads, itself among them; it keeps its affinity.

    A pool that TVM made before with fewer workers stays that small: networks run on it correctly, but slower.
    """
    if threads == 1 or getattr(_configured, "threads", None) == threads:
        return  # code for one thread has no parallel loops
    allowed = _processors()
    shared = [str(allowed[index % len(allowed)]) for index in range(max(threads, len(allowed)))]
    with _unbound():
        tvm.get_global_func("runtime.config_threadpool")(_SHARE_ALL, threads, shared)
    _configured.threads = threads


@contextmanager
def _unbound() -> Iterator[None]:
    """TVM sets no affinity meanwhile, unless the user has decided. All threads share the environment: one at a time."""
    with _environment:
        decided = _BIND in os.environ
        os.environ.setdefault(_BIND, "0")
        try:
            yield
        finally:
            if not decided:
                os.environ.pop(_BIND, None)


def _processors() -> list[int]:
    """The processors that this thread may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
