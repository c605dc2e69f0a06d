"""Compiling needs no disk; saving says what is wrong with it. Neither leaves anything behind."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model
from tests.tvm_backend.onnx_files import conv_model

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    onnx.save(conv_model(), str(tmp_path / "network.onnx"))
    return tmp_path / "network.onnx"


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    folder = tmp_path / "temp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@contextmanager
def full_disk(size: int = 0) -> Iterator[None]:
    """No file grows beyond `size` bytes: each write behind that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _input() -> np.ndarray:
    (image,) = conv_model().graph.input
    shape = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_a_full_disk_does_not_keep_from_compiling(network: Path, temp: Path) -> None:
    expected = compile_model(network).run(_input())
    with full_disk():
        found = compile_model(network).run(_input())
    np.testing.assert_array_equal(found, expected)
    assert list(temp.iterdir()) == []


def _without(folder: Path) -> None:
    folder.rmdir()


def _as_a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("no folder")


@pytest.mark.parametrize("damage", [_without, _as_a_file])
def test_compiling_needs_no_temporary_folder(network: Path, temp: Path, damage: Callable[[Path], None],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    expected = compile_model(network).run(_input())
    damage(temp)
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    compiled = compile_model(network)
    np.testing.assert_array_equal(compiled.run(_input()), expected)
    with pytest.raises(OneXNError, match="cannot be written"):
        compiled.save(network.parent / "saved")
    assert sorted(file.name for file in network.parent.iterdir()) == ["network.onnx", *["temp"] * temp.exists()]


@pytest.mark.parametrize("target", ["host", "cortex-a7"])
@pytest.mark.parametrize("size", [0, 100_000])
def test_a_network_that_does_not_fit_on_the_disk(network: Path, temp: Path, target: str, size: int) -> None:
    compiled = compile_model(network, target=target)
    with full_disk(size), pytest.raises(OneXNError, match=r"cannot be written: .*Name a folder on a disk with room"):
        compiled.save(network.parent / "saved")
    assert sorted(file.name for file in network.parent.iterdir()) == ["network.onnx", "temp"]
    assert list(temp.iterdir()) == []
