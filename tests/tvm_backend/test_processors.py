"""The targets' names, and what they say to LLVM and to the kernels."""

from __future__ import annotations

import importlib
import io

import pytest

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.kernels.cores import CORES
from onexn_plugins.tvm_backend.processors import find_target, targets, vector_unit, why_not_here

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


def pretend(monkeypatch, machine, cpu, triple=""):
    """This machine, as platform and LLVM would name it."""
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module, "_arm_flags", set)
    monkeypatch.setattr(tvm.target.codegen, "llvm_get_system_cpu", lambda: cpu)
    if triple:
        monkeypatch.setattr(tvm.target.codegen, "llvm_get_system_triple", lambda: triple)


@pytest.mark.parametrize(("cpu", "core"), [("znver4", "zen4"), ("znver5", "avx512"), ("sapphirerapids", "avx512")])
def test_a_core_of_its_own_is_told_from_others_of_its_instructions(monkeypatch, cpu, core):
    pretend(monkeypatch, "x86_64", cpu)
    monkeypatch.setattr(module, "_processor_flags", lambda: module._vector_features(cpu))
    host = find_target("host")
    assert (host.cpu, host.core) == (cpu, core)


@pytest.mark.parametrize(("level", "core"), [(2, "sse"), (3, "avx2"), (4, "avx512")])
def test_the_host_is_never_more_than_the_kernel_reports(monkeypatch, level, core):
    """A virtual machine may hide AVX-512 or AVX2 of a processor whose name promises them."""
    pretend(monkeypatch, "x86_64", "znver4")
    monkeypatch.setattr(module, "_processor_flags", lambda: module._vector_features(f"x86-64-v{level}"))
    host = find_target("host")
    assert (host.cpu, host.core) == (f"x86-64-v{level}", core)


@pytest.mark.parametrize("name", [name for name in targets() if name.startswith(("cortex", "neoverse"))])
def test_a_host_gets_what_its_name_as_a_target_gets(monkeypatch, name):
    named = find_target(name)
    pretend(monkeypatch, named.triple.split("-")[0], named.cpu, named.triple)
    host = find_target("host")
    assert (host.name, vector_unit(host), host.tvm) == ("host", vector_unit(named), named.tvm)


@pytest.mark.parametrize(("cpu", "core"), [("apple-m3", "apple"), ("cortex-x4", "neon"), ("generic", "neon")])
def test_other_64_bit_arm_hosts_are_taken_by_their_instructions(monkeypatch, cpu, core):
    pretend(monkeypatch, "arm64", cpu, "aarch64-unknown-linux-gnu")
    assert (find_target("host").cpu, find_target("host").core) == (cpu, core)


@pytest.mark.parametrize("machine", ["riscv64", "ppc64le", "s390x"])
def test_an_architecture_without_kernels_is_refused_by_name(monkeypatch, machine):
    pretend(monkeypatch, machine, "generic", f"{machine}-unknown-linux-gnu")
    with pytest.raises(OneXNError, match=f"no kernels for {machine}.*cortex-a72"):
        find_target("host")


def test_cores_that_run_in_order_unroll_by_themselves():
    assert {name for name, unit in CORES.items() if unit.unrolls} == {"cortex-a53", "cortex-a55"}


@pytest.mark.parametrize(("name", "lacks"), [
    ("cortex-a53", None), ("cortex-a72", None), ("cortex-a76", "asimddp, asimdhp, atomics"), ("neoverse-v2", "sve")])
def test_an_arm_board_without_a_targets_instructions_is_told_so(monkeypatch, name, lacks):
    """A Cortex-A53 reports none of ARMv8.2."""
    pretend(monkeypatch, "aarch64", "cortex-a53", "aarch64-unknown-linux-gnu")
    monkeypatch.setattr(module, "_arm_flags", lambda: {"fp", "asimd", "aes", "crc32"})
    reason = why_not_here(find_target(name))
    assert reason is None if lacks is None else lacks in reason
    for flags in ({"asimd", *module.ARM_FLAGS.values()}, set()):
        monkeypatch.setattr(module, "_arm_flags", lambda flags=flags: flags)
        assert why_not_here(find_target(name)) is None


def test_an_arm_host_goes_without_what_its_virtual_machine_hides(monkeypatch):
    pretend(monkeypatch, "aarch64", "neoverse-v2", "aarch64-unknown-linux-gnu")
    monkeypatch.setattr(module, "_arm_flags", lambda: {"asimd", *module.ARM_FLAGS.values()} - {"sve", "sve2"})
    host = find_target("host")
    assert host.features == ("+neon", "-sve", "-sve2")
    assert why_not_here(host) is None


def test_the_kernels_flags_are_read_on_x86_and_arm(monkeypatch):
    text = "processor : 0\nflags\t\t: fpu sse4_1\nFeatures\t: fp asimddp\n"
    monkeypatch.setattr(module, "open", lambda *arguments, **options: io.StringIO(text), raising=False)
    assert (module._processor_flags(), module._arm_flags()) == ({"fpu", "sse41"}, {"fp", "asimddp"})
