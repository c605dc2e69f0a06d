"""The artefact on disk: whole or absent, and never believed when damaged or foreign."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import importlib
import json
import platform
import resource
import shutil
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model, load
from onexn_plugins.tvm_backend.output import artefact as module
from onexn_plugins.tvm_backend.output import linker
from onexn_plugins.tvm_backend.output.artefact import CHECKSUMS, LIBRARY, METADATA, WEIGHTS, read, write
from onexn_plugins.tvm_backend.output.tvm_library import TVMLibrary
from onexn_plugins.tvm_backend.processors import find_target
from tests.tvm_backend import tiny_network
from tests.tvm_backend.onnx_files import make_model

tvm = pytest.importorskip("tvm")
# The package exports the function of that name.
targets = importlib.import_module("onexn_plugins.tvm_backend.processors")

FILES = (LIBRARY, WEIGHTS, METADATA, CHECKSUMS)


@pytest.fixture(scope="module")
def host():
    return find_target("host")


@pytest.fixture(scope="module")
def network(host):
    return tiny_network.compiled(host)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, network, host):
    """The artefact's folder; tests copy it before they change it."""
    return write(tmp_path_factory.mktemp("saved") / "tiny", network, host, tiny_network.METADATA)


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def rewrite(folder, **changes):
    """Changes the metadata and makes the checksums right again: the work of another program, not of a bad disk."""
    metadata = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps({**metadata, **changes}))
    make_sums_right(folder)


def make_sums_right(folder):
    sums = (f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES[:-1])
    (folder / CHECKSUMS).write_text("".join(sums))


def test_what_was_written_is_read_and_runs(saved, host):
    artefact = read(saved)
    assert artefact.target == host
    assert {key: artefact.metadata[key] for key in tiny_network.METADATA} == tiny_network.METADATA
    assert artefact.metadata["versions"]["apache-tvm"] == tvm.__version__
    x = np.random.default_rng(1).standard_normal(tiny_network.INPUT_SHAPE, np.float32)
    output = artefact.network().run(tvm.runtime.tensor(x))
    np.testing.assert_allclose(output.numpy(), tiny_network.expected(x), atol=1e-5)


def test_nothing_lies_beside_it(saved):
    assert sorted(file.name for file in saved.iterdir()) == sorted(FILES)
    assert [file.name for file in saved.parent.iterdir()] == ["tiny"]


def test_an_older_artefact_is_replaced(copy, network, host):
    write(copy, network, host, {**tiny_network.METADATA, "layers": ["newer"]})
    assert read(copy).metadata["layers"] == ["newer"]
    assert [file.name for file in copy.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize("make", ["file", "folder"])
def test_nothing_else_is_overwritten(tmp_path, network, host, make):
    path = tmp_path / "precious"
    path.write_text("mine") if make == "file" else (path / "mine").mkdir(parents=True)
    with pytest.raises(OneXNError, match="is no saved network"):
        write(path, network, host, tiny_network.METADATA)
    assert path.read_text() == "mine" if make == "file" else (path / "mine").is_dir()


def test_a_full_disk_leaves_the_older_artefact(copy, network, host, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.Path, "write_text", full)
    with pytest.raises(OneXNError, match="No space left"):
        write(copy, network, host, {**tiny_network.METADATA, "layers": ["newer"]})
    assert read(copy).metadata["layers"] == []
    assert [file.name for file in copy.parent.iterdir()] == ["copy"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
@pytest.mark.parametrize("size", [0, 5_000, 20_000])
def test_a_disk_that_is_really_full_ends_neither_process_nor_artefact(copy, network, host, size):
    """LLVM ends the process where it cannot write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(OneXNError, match="cannot be written"):
            write(copy, network, host, {**tiny_network.METADATA, "layers": ["newer"]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read(copy).metadata["layers"] == []
    assert [file.name for file in copy.parent.iterdir()] == ["copy"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_disk_with_room_for_code_alone(copy, network, host, monkeypatch):
    monkeypatch.setattr(module, "CODE_BYTES", 1 << 19)
    large = TVMLibrary(network.code, np.zeros(4 << 20, np.uint8), 4 << 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OneXNError, match="cannot be written"):
            write(copy, large, host, tiny_network.METADATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read(copy).memory_bytes == network.memory.nbytes
    assert [file.name for file in copy.parent.iterdir()] == ["copy"]


def test_a_failing_linker_leaves_nothing(tmp_path, network, host, monkeypatch):
    monkeypatch.setattr(linker, "compiler", lambda target: ["false"])
    with pytest.raises(OneXNError, match=r"target 'host': could not be linked"):
        write(tmp_path / "new", network, host, tiny_network.METADATA)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused(copy, name, where, bit):
    whole = (copy / name).read_bytes()
    damaged = bytearray(whole)
    damaged[int(where * len(whole))] ^= 1 << bit
    (copy / name).write_bytes(damaged)
    with pytest.raises(OneXNError, match="is damaged"):
        read(copy)
    (copy / name).write_bytes(whole)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True))
def test_any_cut_is_refused(copy, name, where):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: int(where * len(whole))])
    with pytest.raises(OneXNError, match="damaged"):
        read(copy)
    (copy / name).write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(OneXNError, match=f"it has no {name}"):
        read(copy)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OneXNError, match="is no saved network"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "something else"}, "not written by this package"),
        ({"format_version": 1}, "format version 1, this package reads 4"),
        ({"target": None}, "metadata this package does not know"),
        ({"target": {"name": "host"}}, "metadata this package does not know"),
        ({"inputs": [{"name": "x", "shape": [-1], "dtype": "float32"}]}, "metadata this package does not know"),
        ({"outputs": 3}, "metadata this package does not know"),
        ({"memory_bytes": 0}, "metadata this package does not know"),
        ({"memory_bytes": -1}, "metadata this package does not know"),
        ({"memory_bytes": "many"}, "metadata this package does not know"),
        ({"versions": []}, "metadata this package does not know"),
        ({"versions": {"apache-tvm": "0.20.0"}}, r"compiled by TVM 0\.20\.0"),
    ],
)
def test_a_foreign_artefact_is_refused(copy, changes, reason):
    rewrite(copy, **changes)
    with pytest.raises(OneXNError, match=reason):
        read(copy)


def test_less_memory_than_weights_is_refused(copy):
    rewrite(copy, memory_bytes=64)
    with pytest.raises(OneXNError, match="no network that this version can load"):
        load(copy)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["format", "format_version", "target", "inputs", "outputs", "layers", "versions"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_any_other_metadata_is_read_or_refused(copy, key, value):
    rewrite(copy, **{key: value})
    try:
        artefact = read(copy)
    except OneXNError as refused:
        artefact = None
        named = refused.layer
    assert artefact.metadata[key] == value if artefact else named == str(copy)


def test_metadata_that_is_not_json_is_refused(copy):
    for text in ("", "{", "[" * 100_000, "\x00"):
        (copy / METADATA).write_text(text)
        make_sums_right(copy)
        with pytest.raises(OneXNError, match="metadata is not JSON"):
            read(copy)


def test_another_processors_artefact_is_refused_here_and_let_through_for_the_board(copy):
    board = dataclasses.asdict(find_target("apple-m1"))
    rewrite(copy, target=board)
    with pytest.raises(OneXNError, match="was compiled for 'apple-m1': it needs aarch64 darwin"):
        read(copy)
    assert read(copy, run_here=False).target == find_target("apple-m1")


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="reads /proc/cpuinfo's flags")
def test_a_processor_without_the_vector_unit_is_refused(copy, monkeypatch):
    rewrite(copy, target=dataclasses.asdict(find_target("x86-64-v3")))
    monkeypatch.setattr(targets, "_processor_flags", lambda: {"sse4", "sse41", "sse42", "avx"})
    with pytest.raises(OneXNError, match="this processor lacks avx2, fma"):
        read(copy)


def test_what_is_empty_is_saved_and_loaded(tmp_path):
    path = tmp_path / "model.onnx"
    nodes = [helper.make_node("Slice", ["x", "zero", "zero"], ["nothing"]), helper.make_node("Relu", ["x"], ["y"])]
    path.write_bytes(make_model(nodes, {"x": (2, 3)}, ["nothing", "y"], {"zero": np.array([0])}).SerializeToString())
    compiled = compile_model(path)
    nothing, y = load(compiled.save(tmp_path / "network")).run(np.ones((2, 3), np.float32))
    assert nothing.shape == (0, 3)
    np.testing.assert_array_equal(y, 1)
