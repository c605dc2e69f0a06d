"""A disk that is really full: a small one of its own, which a trial fills. Only root may mount it, in CI by sudo."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.nni.experiment import running


@pytest.fixture
def small_disk(tmp_path):
    """tmp_path, with 80 MB for experiments."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    in_ci = os.environ.get("CI") == "true"
    as_root = ["sudo", "--non-interactive"] if in_ci and os.geteuid() else []
    mount = ["mount", "-t", "tmpfs", "-o", f"size=80m,uid={os.geteuid()}", "tmpfs", str(folder)]
    done = subprocess.run([*as_root, *mount], capture_output=True, text=True, check=False)
    if done.returncode:
        (pytest.fail if in_ci else pytest.skip)(f"no disk can be mounted here: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run([*as_root, "umount", "--lazy", str(folder)], check=True)


def test_it_is_named_and_what_was_finished_is_kept(small_disk):
    settings = running.config(("Table", "Fill", "Number"))
    code, out, err = running.end(running.begin(small_disk, settings, "--timeout", "400"), 500)
    assert code == 2, out + err
    assert "the disk is full" in out
    assert "0.750" in out
    assert "result.json cannot be written" in out
    assert running.left_running(small_disk) == []
