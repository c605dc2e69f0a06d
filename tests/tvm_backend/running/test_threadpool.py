"""Pools of threads that are made at the same time: the environment is one for all of them."""

from __future__ import annotations

import os
import threading

import pytest

from onexn_plugins.tvm_backend.running import threadpool

BIND = "TVM_BIND_THREADS"


class Configuring:
    """Stands for TVM's function, in which the first caller waits for the second one, as long as that may take."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []
        self._second, self._first_done, self._lock = threading.Event(), threading.Event(), threading.Lock()

    def __call__(self, *arguments: object) -> None:
        with self._lock:
            first = not self.seen
            self.seen.append(os.environ.get(BIND))
        if first:
            self._second.wait(0.5)  # it comes only where nothing keeps it out
        else:
            self._second.set()
            self._first_done.wait(10)
            self.seen.append(os.environ.get(BIND))

    def use(self) -> None:
        threadpool.use_threads(3)
        self._first_done.set()


@pytest.mark.parametrize("decided", [None, "1"])
def test_threads_that_make_their_pools_at_once_do_not_undo_each_others_environment(monkeypatch, decided):
    """One of two took the other's setting for the user's, and was bound when the other had taken it back."""
    monkeypatch.delenv(BIND, raising=False)
    if decided is not None:
        monkeypatch.setenv(BIND, decided)
    configuring = Configuring()
    monkeypatch.setattr(threadpool.tvm, "get_global_func", lambda name: configuring)
    threads = [threading.Thread(target=configuring.use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert configuring.seen == [decided or "0"] * 3, "nothing binds the threads while a pool is made, but the user"
    assert os.environ.get(BIND) == decided
