"""The backend's floors: every import goes down, and none goes round."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import onexn_plugins.tvm_backend

ROOT = Path(onexn_plugins.tvm_backend.__file__).parent
PACKAGE = "onexn_plugins.tvm_backend"
# From the ground up: a file imports only what stands on its own floor or below.
FLOORS = ("logs", "kernels", "processors", "reading", "planning", "lowering", "output", "running", "checking", "tuning",
          "compile")
KERNEL_FLOORS = ("problem", "matrices", "unit", "cores", "encode", "request", "family", "code", "parts", "channelwise",
                 "conv", "transposed", "winograd", "linear", "attention", "pairs", "choose")


def modules() -> dict[str, Path]:
    """Every module by its name within the backend, folders by theirs."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: path for name, path in found.items() if name}


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The backend's modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and f"{node.module}.".startswith(f"{PACKAGE}."):
            module = node.module[len(PACKAGE) + 1:]
            for alias in node.names:
                inside = f"{module}.{alias.name}".lstrip(".")
                yield inside if inside in known else module
        elif isinstance(node, ast.Import):
            yield from (alias.name[len(PACKAGE) + 1:] for alias in node.names if alias.name.startswith(f"{PACKAGE}."))


def edges() -> list[tuple[str, str]]:
    known = modules()
    return [(name, target) for name, path in known.items() for target in imports(path, known) if target != name]


def test_no_import_goes_up() -> None:
    assert {name.split(".")[0] for name in modules()} == set(FLOORS), "a new room needs a floor"
    wrong = [edge for edge in edges() if not all(edge) or FLOORS.index(edge[1].split(".")[0]) > FLOORS.index(
        edge[0].split(".")[0])]
    assert wrong == []


def test_no_import_goes_up_among_kernels() -> None:
    inside = {name.split(".")[1] for name in modules() if name.startswith("kernels.")}
    assert inside == set(KERNEL_FLOORS), "a new room needs a floor"
    within = [edge for edge in edges() if all(name.startswith("kernels.") for name in edge)]
    floor = {name: KERNEL_FLOORS.index(name.split(".")[1]) for edge in within for name in edge}
    assert [edge for edge in within if floor[edge[1]] > floor[edge[0]]] == []
    assert len(within) > 100, "the imports were found"


def test_no_import_goes_round() -> None:
    below: dict[str, set[str]] = {}
    for name, target in edges():
        below.setdefault(name, set()).add(target)
    TopologicalSorter(below).prepare()


def test_no_submodule_is_hidden_by_what_its_package_imports() -> None:
    """`from package import name` would give a function where a reader expects the file."""
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    for package in ("", *packages):
        path = ROOT.joinpath(*package.split("."), "__init__.py") if package else ROOT / "__init__.py"
        prefix = f"{package}." if package else ""
        files = {name[len(prefix):] for name in modules() if name.startswith(prefix) and "." not in name[len(prefix):]}
        # What it imports from itself are the files.
        itself = f"{PACKAGE}.{package}".rstrip(".")
        bound = {alias.asname or alias.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.ImportFrom) and node.module != itself for alias in node.names}
        assert not files & bound, f"{package or PACKAGE} hides {files & bound}"
