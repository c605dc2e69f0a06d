"""Turns the objects LLVM emits for a target into a shared library, without a toolchain from the system if need be.

`ziglang` from PyPI is a C compiler and linker for every target, with the C library's stubs of every glibc version: a
library linked by it asks the board for no newer one than `Target.glibc`. The system's compilers are the second choice
for a board, and the first for this machine.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.processors import Target, architecture

_GCC = {
    "aarch64": "aarch64-linux-gnu-gcc",
    "armv7": "arm-linux-gnueabihf-gcc",
    "x86_64": "x86_64-linux-gnu-gcc",
}
_ZIG = {
    ("aarch64", "linux"): "aarch64-linux-gnu",
    ("armv7", "linux"): "arm-linux-gnueabihf",
    ("x86_64", "linux"): "x86_64-linux-gnu",
    ("aarch64", "darwin"): "aarch64-macos",
}


def shared_library_linker(target: Target) -> Callable[..., None]:
    """What TVM's `export_library(fcompile=...)` takes: `link(output, objects)`.

    Errors:
        OneXNError: at once, if nothing here can link for the target; from `link`, if the linker fails.
    """
    command = compiler(target)
    flags = ["-shared", "-fPIC"]
    if target.architecture != "armv7":
        # 64-bit objects call nothing of the compiler's own runtime, and zig would first build it: 30 s against 1 s.
        flags += ["-nostdlib", "-lc"]
    # The library's calls into TVM's runtime are resolved when it is loaded; only Apple's linker has to be told.
    flags += ["-Wl,-undefined,dynamic_lookup"] if target.system == "darwin" else ["-lm"]

    def link(output: str, objects: Sequence[str], options: Sequence[str] = ()) -> None:
        run_compiler(target, [*command, "-o", output, *objects, *options, *flags])

    return link


def compiler(target: Target) -> list[str]:
    """The command that compiles and links C for the target.

    Errors:
        OneXNError: there is none; says what to install.
    """
    native = [[name] for name in ("cc", "gcc", "clang") if shutil.which(name)] if is_native(target) else []
    cross = _GCC.get(target.architecture) if target.system == "linux" else None
    found = [*native, *_zig(target), *([[cross]] if cross and shutil.which(cross) else [])]
    if found:
        return found[0]
    needs = f" or Debian's {_debian_package(cross)}" if cross else ""
    raise OneXNError(
        f"target {target.name!r}",
        "has no linker on this machine",
        f"Install one with: pip install ziglang (part of 'onexn-plugins[tvm]'){needs}",
    )


def static_compiler(target: Target) -> list[str]:
    """The command that compiles C, and links it into a program that needs nothing of the system it runs on.

    Errors:
        OneXNError: as `compiler`.
    """
    command = compiler(target)
    if "ziglang" in command:
        triple = command.index("-target") + 1
        # musl is made for static linking; zig builds it for a target once, which takes a minute or two.
        command[triple] = command[triple].split(".")[0].replace("gnu", "musl")
    return [*command, "-static", "-O2"]


def archiver(target: Target) -> list[str]:
    """The `ar` that goes with `compiler`.

    Errors:
        OneXNError: as `compiler`.
    """
    command = compiler(target)
    if "ziglang" in command:
        return [*command[: command.index("cc")], "ar"]
    return [command[0].removesuffix("gcc") + "ar" if command[0].endswith("-gcc") else "ar"]


def run_compiler(target: Target, command: Sequence[str]) -> None:
    """Runs a compiler's command line.

    Errors:
        OneXNError: it failed; with the end of what it printed.
    """
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-800:]
        tool = " ".join(command[:4])
        raise OneXNError(
            f"target {target.name!r}",
            f"could not be linked: {tool} ... ended with {done.returncode}: {said}",
            "Mend what the linker names; a full disk and a read-only cache folder are the usual causes",
        )


def is_native(target: Target) -> bool:
    """Whether this machine's own compiler builds for the target's system and instruction set."""
    return (target.architecture, target.system) == (architecture(platform.machine()), sys.platform)


def _zig(target: Target) -> list[list[str]]:
    """Zig's command for the target, with the oldest glibc it must run on; none if it is not installed."""
    triple = _ZIG.get((target.architecture, target.system))
    if triple is None or importlib.util.find_spec("ziglang") is None:
        return []
    glibc = f".{target.glibc}" if target.glibc else ""
    cpu = ["-mcpu=cortex_a7"] if target.architecture == "armv7" else []  # hard-float objects need a core with VFP
    return [[sys.executable, "-m", "ziglang", "cc", "-target", triple + glibc, *cpu]]


def _debian_package(gcc: str) -> str:
    return "gcc-" + gcc.removesuffix("-gcc")
