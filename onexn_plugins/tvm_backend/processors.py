"""The processors a network can be compiled for: what LLVM calls them and what their vector unit holds."""

from __future__ import annotations

import difflib
import platform
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from onexn_plugins.errors import MissingDependencyError, OneXNError

# The smallest glibc asked of an ARM board: the one TVM's own aarch64 wheels ask for (manylinux_2_28).
BOARD_GLIBC = "2.28"
# LLVM believes a multiplication and an addition faster on a Cortex-A7 than one fused instruction, also in chains; but
# each of the three takes four cycles for four lanes, as measurements of others say (see benchmarks/arm).
CORTEX_A7 = ("+neon", "-slowfpvfmx", "-vmlx-hazards", "+use-misched")

# AMD's first core with AVX-512 has data paths of 256 bits.
HALVED = ("znver4",)


@dataclass(frozen=True)
class Target:
    """One processor, as the code generator and the kernels see it.

    Attributes:
        name: what `compile_model(target=...)` takes.
        triple: LLVM's name for architecture, system and ABI.
        cpu: LLVM's name for the core.
        lanes: float32 values in one vector register.
        registers: how many vector registers the core has.
        fused_weights: multiplying by one lane of a weight vector is cheaper than broadcasting each weight.
        features: LLVM features switched on beyond the core's own.
        float_abi: "hard" where the ABI passes floats in vector registers and LLVM has to be told.
        glibc: the oldest glibc the library must run with; None leaves it to the linker.
        unrolled: LLVM unrolls loops by itself for this core.
        halved: works on one half of a vector register after the other.
        tvm_runtime: TVM's runtime can be installed there; elsewhere a network becomes a program of its own.
    """

    name: str
    triple: str
    cpu: str
    lanes: int
    registers: int
    fused_weights: bool
    features: tuple[str, ...] = ()
    float_abi: str | None = None
    glibc: str | None = None
    tvm_runtime: bool = True
    unrolled: bool = False
    halved: bool = False

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
    if here == ("x86_64", "linux"):
        missing = _vector_features(target.cpu) - _processor_flags()
        if missing:
            return f"this processor lacks {', '.join(sorted(missing))}"
    return None


def _x86(name: str, cpu: str, level: int) -> Target:
    """An x86-64 core of one of the psABI's levels: 2 has SSE4.2, 3 AVX2 and FMA, 4 AVX-512."""
    lanes, registers = {2: (4, 16), 3: (8, 16), 4: (16, 32)}[level]
    return Target(name, "x86_64-linux-gnu", cpu, lanes, registers, fused_weights=False, halved=cpu in HALVED)


def _armv8(cpu: str, *, unrolled: bool = False) -> Target:
    return Target(cpu, "aarch64-linux-gnu", cpu, 4, 32, True, features=("+neon",), glibc=BOARD_GLIBC, unrolled=unrolled)


_KNOWN = {
    target.name: target
    for target in (
        Target("cortex-a7", "armv7l-linux-gnueabihf", "cortex-a7", 4, 16, True, CORTEX_A7, "hard", BOARD_GLIBC, False),
        _armv8("cortex-a53", unrolled=True),
        _armv8("cortex-a72"),
        _armv8("cortex-a76"),
        Target("apple-m1", "arm64-apple-macos11.0", "apple-m1", 4, 32, True),
        _x86("x86-64-v2", "x86-64-v2", 2),
        _x86("x86-64-v3", "x86-64-v3", 3),
        _x86("x86-64-v4", "x86-64-v4", 4),
    )
}


def _host() -> Target:
    """This machine. On x86-64 under Linux the kernel's flags have the last word, not the model's name.

    A virtual machine may hide what its processor could do: LLVM, asked for the processor by name, would then emit
    instructions that trap. In that case the psABI level the flags do fill is taken instead of the name.
    """
    codegen = _llvm()
    cpu = str(codegen.llvm_get_system_cpu())
    if architecture(platform.machine()) != "x86_64":
        return Target("host", str(codegen.llvm_get_system_triple()), cpu, 4, 32, fused_weights=True)
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


def _vector_features(cpu: str) -> set[str]:
    """What LLVM would use of an x86-64 core's SSE4, AVX and FMA, spelled as the Linux kernel spells it."""
    codegen = _llvm()
    target = codegen.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": cpu})
    names = (_plain(feature) for feature in codegen.llvm_get_cpu_features(target))
    return {name for name in names if name.startswith(("sse4", "avx", "fma"))}


def _processor_flags() -> set[str]:
    """The instruction set extensions that this machine's Linux kernel reports."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("flags"):
                return {_plain(flag) for flag in line.split(":", 1)[1].split()}
    return set()


def _plain(feature: object) -> str:
    """LLVM says avx512vnni and sse4.1 where the kernel says avx512_vnni and sse4_1."""
    return str(feature).replace("_", "").replace(".", "")


def architecture(machine: str) -> str:
    """One spelling for an instruction set that goes by several names."""
    aliases = {"arm64": "aarch64", "amd64": "x86_64", "armv7l": "armv7", "arm": "armv7"}
    return aliases.get(machine.lower(), machine.lower())
