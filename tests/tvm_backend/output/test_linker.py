"""Linking for this machine and for boards, with what is installed and with nothing."""

from __future__ import annotations

import platform
import struct

import pytest

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.output import linker
from onexn_plugins.tvm_backend.processors import architecture, find_target
from tests.tvm_backend import tiny_network

pytest.importorskip("tvm")

ELF_MACHINE = {"cortex-a72": 183, "cortex-a7": 40}  # EM_AARCH64, EM_ARM


def test_a_board_needs_no_toolchain_from_the_system(tmp_path, monkeypatch):
    pytest.importorskip("ziglang")
    monkeypatch.setattr(linker.shutil, "which", lambda name: None)
    target = find_target("cortex-a72")
    library = tmp_path / "network.so"
    tiny_network.compiled(target).write(tmp_path, target, ["x"], ["y"])
    elf = library.read_bytes()
    assert elf[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", elf, 18)[0] == ELF_MACHINE[target.name]


def test_a_board_falls_back_to_the_cross_compiler(monkeypatch):
    monkeypatch.setattr(linker, "_zig", lambda target: [])
    monkeypatch.setattr(linker.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(linker, "is_native", lambda target: False)
    assert linker.compiler(find_target("cortex-a72")) == ["aarch64-linux-gnu-gcc"]
    assert linker.compiler(find_target("cortex-a7")) == ["arm-linux-gnueabihf-gcc"]


@pytest.mark.parametrize(
    ("name", "package"),
    [("cortex-a72", "Debian's gcc-aarch64-linux-gnu"), ("cortex-a7", "Debian's gcc-arm-linux-gnueabihf")],
)
def test_no_linker_at_all_says_what_to_install(monkeypatch, name, package):
    monkeypatch.setattr(linker, "_zig", lambda target: [])
    monkeypatch.setattr(linker.shutil, "which", lambda name: None)
    with pytest.raises(OneXNError, match=rf"no linker on this machine.*pip install ziglang.*{package}"):
        linker.compiler(find_target(name))


def test_the_linkers_own_words_are_passed_on(tmp_path):
    host = find_target("host")
    with pytest.raises(OneXNError, match=r"target 'host'.*nowhere\.o"):
        linker.shared_library_linker(host)(str(tmp_path / "network.so"), [str(tmp_path / "nowhere.o")])


def test_the_host_is_native():
    assert linker.is_native(find_target("host"))
    other = "cortex-a72" if architecture(platform.machine()) == "x86_64" else "x86-64-v2"
    assert not linker.is_native(find_target(other))
