"""The processors a network can be compiled for: what LLVM calls them, and which row of kernels/cores.py is theirs."""

from __future__ import annotations

import difflib
import platform
import sys
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

from onexn_plugins.errors import MissingDependencyError, OneXNError
from onexn_plugins.tvm_backend.kernels.cores import CORES
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# The smallest glibc asked of an ARM board: the one TVM's own aarch64 wheels ask for (manylinux_2_28).
BOARD_GLIBC = "2.28"
# LLVM believes a multiplication and an addition faster on a Cortex-A7 than one fused instruction, also in chains; but
# each of the three takes four cycles for four lanes, as measurements of others say (see benchmarks/arm).
CORTEX_A7 = ("+neon", "-slowfpvfmx", "-vmlx-hazards", "+use-misched")

# x86-64 cores that have a row of their own in cores.py, by LLVM's name; others have that of their vector instructions.
X86_CORES = {"znver4": "zen4"}
# The rows of the levels of x86-64 in the psABI: 2 has SSE4.2, 3 AVX2 and FMA, 4 AVX-512.
X86_LEVELS = {2: "sse", 3: "avx2", 4: "avx512"}
# LLVM's features of 64-bit ARM that code for a core may use and an older core lacks: the Linux kernel's names for them.
ARM_FLAGS = {"dotprod": "asimddp", "fullfp16": "asimdhp", "lse": "atomics", "sve": "sve", "sve2": "sve2",
             "i8mm": "i8mm", "bf16": "bf16"}


@dataclass(frozen=True)
class Target:
    """One processor, as the code generator and the kernels see it.

    Attributes:
        name: what `compile_model(target=...)` takes.
        triple: LLVM's name for architecture, system and ABI.
        cpu: LLVM's name for the core.
        core: the row of kernels/cores.py.
        features: LLVM features switched on beyond the core's own.
        float_abi: "hard" where the ABI passes floats in vector registers and LLVM has to be told.
        glibc: the oldest glibc the library must run with; None leaves it to the linker.
        tvm_runtime: TVM's runtime can be installed there; elsewhere a network becomes a program of its own.
    """

    name: str
    triple: str
    cpu: str
    core: str
    features: tuple[str, ...] = ()
    float_abi: str | None = None
    glibc: str | None = None
    tvm_runtime: bool = True

    def __post_init__(self) -> None:
        if self.core not in CORES:
            raise ValueError(f"{self.core!r} is no row of cores.py")

    @property
    def architecture(self) -> str:
        """The instruction set: "x86_64", "aarch64" or "armv7"."""
        return architecture(self.triple.split("-")[0])

    @property
    def system(self) -> str:
        """The operating system: "linux" or "darwin"."""
        return "darwin" if any(word in self.triple for word in ("macos", "darwin", "apple")) else "linux"

    @property
    def tvm(self) -> dict[str, Any]:
        """The configuration `tvm.target.Target` takes."""
        config: dict[str, Any] = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.cpu}
        if self.features:
            config["mattr"] = list(self.features)
        if self.float_abi:
            config["mfloat-abi"] = self.float_abi
        return config


def vector_unit(target: Target, threads: int = 1, strict: bool = False) -> VectorUnit:
    """What kernels know of a target, of which so many cores share a kernel; see VectorUnit.strict."""
    return replace(CORES[target.core], threads=threads, strict=strict)


def targets() -> list[str]:
    """The names `find_target` and `compile_model(target=...)` take."""
    return ["host", *_KNOWN]


def find_target(name: str) -> Target:
    """The target of that name; "host" is this machine, with the best vector unit it has.

    Errors:
        OneXNError: there is no such target (names the closest ones), or "host" without TVM installed.
    """
    if name == "host":
        return _host()
    if name in _KNOWN:
        return _KNOWN[name]
    close = difflib.get_close_matches(str(name).lower(), targets(), n=3, cutoff=0.5)
    fix = f"Did you mean {' or '.join(map(repr, close))}" if close else f"Take one of: {', '.join(targets())}"
    raise OneXNError(f"target {name!r}", "is not a known processor", fix)


def why_not_here(target: Target) -> str | None:
    """Why this machine cannot run code for the target; None if it can."""
    here = (architecture(platform.machine()), sys.platform)
    if here != (target.architecture, target.system):
        return f"it needs {target.architecture} {target.system}, this is {' '.join(here)}"
    missing = frozenset[str]()
    if here == ("x86_64", "linux"):
        missing = _vector_features(target.cpu) - _processor_flags()
    elif here == ("aarch64", "linux"):
        missing = frozenset(ARM_FLAGS[feature] for feature in _missing_arm_features(target))
    return f"this processor lacks {', '.join(sorted(missing))}" if missing else None


def _x86(name: str, cpu: str, level: int) -> Target:
    """An x86-64 core of one of the psABI's levels."""
    return Target(name, "x86_64-linux-gnu", cpu, X86_CORES.get(cpu, X86_LEVELS[level]))


def _armv8(cpu: str) -> Target:
    return Target(cpu, "aarch64-linux-gnu", cpu, cpu, features=("+neon",), glibc=BOARD_GLIBC)


_KNOWN = {
    target.name: target
    for target in (
        Target("cortex-a7", "armv7l-linux-gnueabihf", "cortex-a7", "cortex-a7", CORTEX_A7, "hard", BOARD_GLIBC, False),
        *map(_armv8, ("cortex-a53", "cortex-a55", "cortex-a72", "cortex-a76", "cortex-a78", "neoverse-n1",
                      "neoverse-n2", "neoverse-v2")),
        Target("apple-m1", "arm64-apple-macos11.0", "apple-m1", "apple"),
        *(_x86(f"x86-64-v{level}", f"x86-64-v{level}", level) for level in X86_LEVELS),
    )
}


def _host() -> Target:
    """This machine, by the row of its core where there is one."""
    machine = architecture(platform.machine())
    if machine == "x86_64":
        return _x86_host()
    cpu, triple = str(_llvm().llvm_get_system_cpu()), str(_llvm().llvm_get_system_triple())
    known = next((target for target in _KNOWN.values() if (target.cpu, target.architecture) == (cpu, machine)), None)
    if known is not None:
        return _without_hidden(replace(known, name="host", triple=triple, glibc=None))
    if machine == "aarch64":
        return _without_hidden(Target("host", triple, cpu, "apple" if cpu.startswith("apple-") else "neon"))
    raise OneXNError("target 'host'", f"there are no kernels for {machine}",
                     f"Compile for another machine, target= one of: {', '.join(_KNOWN)}")


def _without_hidden(target: Target) -> Target:
    """An ARM host without what a virtual machine hides of its core."""
    if target.architecture != "aarch64" or sys.platform != "linux":
        return target
    return replace(target, features=(*target.features, *(f"-{name}" for name in _missing_arm_features(target))))


def _x86_host() -> Target:
    """Under Linux the kernel's flags have the last word, not the model's name.

    A virtual machine may hide what its processor could do: LLVM, asked for the processor by name, would then emit
    instructions that trap. In that case the psABI level the flags do fill is taken instead of the name.
    """
    cpu = str(_llvm().llvm_get_system_cpu())
    if sys.platform != "linux":
        return _x86("host", "x86-64-v2", 2)
    flags = _processor_flags()
    level = max((level for level in (3, 4) if _vector_features(f"x86-64-v{level}") <= flags), default=2)
    if not _vector_features(cpu) <= flags:
        cpu = f"x86-64-v{level}"
    return _x86("host", cpu, level)


def _llvm() -> ModuleType:
    """TVM's questions to LLVM; imported only when asked for, so that the names need no TVM."""
    try:
        from tvm.target import codegen
    except ImportError as error:
        raise MissingDependencyError("apache-tvm", "tvm") from error
    return codegen


@cache
def _vector_features(cpu: str) -> frozenset[str]:
    """What LLVM would use of an x86-64 core's SSE4, AVX and FMA, spelled as the Linux kernel spells it."""
    codegen = _llvm()
    target = codegen.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": cpu})
    names = (_plain(feature) for feature in codegen.llvm_get_cpu_features(target))
    return frozenset(name for name in names if name.startswith(("sse4", "avx", "fma")))


def _missing_arm_features(target: Target) -> list[str]:
    """What LLVM would use of a 64-bit ARM core and this machine's Linux kernel does not report; none where it reports
    nothing, as some emulators do.
    """
    codegen, flags = _llvm(), _arm_flags()
    used = {str(feature) for feature in codegen.llvm_get_cpu_features(codegen.Target(target.tvm))}
    return [feature for feature, flag in ARM_FLAGS.items() if flags and feature in used and flag not in flags]


def _processor_flags() -> set[str]:
    """The instruction set extensions that this machine's Linux kernel reports of an x86-64 core."""
    return _listed("flags")


def _arm_flags() -> set[str]:
    """The same of an ARM core."""
    return _listed("Features")


def _listed(title: str) -> set[str]:
    """The words of the first line of that title that the Linux kernel says of its processors."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(title):
                return {_plain(flag) for flag in line.split(":", 1)[1].split()}
    return set()


def _plain(feature: object) -> str:
    """LLVM says avx512vnni and sse4.1 where the kernel says avx512_vnni and sse4_1."""
    return str(feature).replace("_", "").replace(".", "")


def architecture(machine: str) -> str:
    """One spelling for an instruction set that goes by several names."""
    aliases = {"arm64": "aarch64", "amd64": "x86_64", "armv7l": "armv7", "arm": "armv7"}
    return aliases.get(machine.lower(), machine.lower())
