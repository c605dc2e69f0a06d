"""What is fetched once is whole or absent; what cannot be had is said."""

from __future__ import annotations

import threading
import time

import pytest

from benchmarks.common.emulation.apt import foreign_sources
from benchmarks.common.emulation.cache import made_once


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "onexn-plugins"


def test_a_folder_is_made_once():
    calls = []

    def make(folder):
        calls.append(folder)
        (folder / "file").write_text("whole")

    assert made_once("thing", make) == made_once("thing", make)
    assert len(calls) == 1
    assert (made_once("thing", make) / "file").read_text() == "whole"


def test_an_interrupted_making_leaves_nothing(cache):
    def interrupted(folder):
        (folder / "file").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once("thing", interrupted)
    assert [path.name for path in cache.iterdir()] == ["thing.lock"]


def test_what_a_killed_process_left_is_cleared(cache):
    (cache / "thing.partial.abc" / "new").mkdir(parents=True)
    made_once("thing", lambda folder: None)
    assert sorted(path.name for path in cache.iterdir()) == ["thing", "thing.lock"]


def test_a_second_process_waits_for_the_first():
    order = []

    def slow(folder):
        order.append("began")
        time.sleep(0.2)
        order.append("ended")

    threads = [threading.Thread(target=made_once, args=("thing", slow)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == ["began", "ended"]


def test_ubuntu_has_arm64_elsewhere_and_debian_has_not(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    ubuntu = {"ID": "ubuntu", "VERSION_CODENAME": "noble"}
    sources = foreign_sources("arm64", ubuntu)
    assert "noble-updates main universe" in sources
    assert foreign_sources("amd64", ubuntu) is None
    assert foreign_sources("arm64", {"ID": "debian", "VERSION_CODENAME": "bookworm"}) is None
