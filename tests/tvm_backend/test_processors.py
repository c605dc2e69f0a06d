"""The targets' names, and what they say to LLVM and to the kernels."""

from __future__ import annotations

import importlib

import pytest

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.processors import find_target, targets

tvm = pytest.importorskip("tvm")
# The package exports the function of that name.
module = importlib.import_module("onexn_plugins.tvm_backend.processors")


@pytest.mark.parametrize("name", targets())
def test_llvm_knows_every_target_by_its_name(name):
    target = find_target(name)
    assert target.name == name
    assert tvm.target.codegen.llvm_is_valid_cpu(target.cpu, target.triple)
    assert tvm.target.Target(target.tvm).attrs["mcpu"] == target.cpu


@pytest.mark.parametrize(
    ("name", "architecture", "system"),
    [("cortex-a7", "armv7", "linux"), ("cortex-a72", "aarch64", "linux"), ("apple-m1", "aarch64", "darwin")],
)
def test_a_target_says_which_machine_it_runs_on(name, architecture, system):
    target = find_target(name)
    assert (target.architecture, target.system) == (architecture, system)


def test_an_unknown_target_is_answered_with_the_closest_names():
    with pytest.raises(OneXNError, match=r"cortexa72.*Did you mean 'cortex-a72'"):
        find_target("cortexa72")
    with pytest.raises(OneXNError, match="Take one of: host, cortex-a7"):
        find_target("")


@pytest.mark.parametrize(("cpu", "halved"), [("znver4", True), ("znver5", False), ("sapphirerapids", False)])
def test_zen_4_works_on_one_half_of_a_register_after_the_other(monkeypatch, cpu, halved):
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module, "_processor_flags", lambda: module._vector_features(cpu))
    monkeypatch.setattr(tvm.target.codegen, "llvm_get_system_cpu", lambda: cpu)
    host = find_target("host")
    assert (host.cpu, host.lanes, host.halved) == (cpu, 16, halved)


@pytest.mark.parametrize(("level", "lanes"), [(2, 4), (3, 8), (4, 16)])
def test_the_host_is_never_more_than_the_kernel_reports(monkeypatch, level, lanes):
    """A virtual machine may hide AVX-512 or AVX2 of a processor whose name promises them."""
    monkeypatch.setattr(module.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module, "_processor_flags", lambda: module._vector_features(f"x86-64-v{level}"))
    monkeypatch.setattr(tvm.target.codegen, "llvm_get_system_cpu", lambda: "znver4")
    host = find_target("host")
    assert (host.cpu, host.lanes) == (f"x86-64-v{level}", lanes)
