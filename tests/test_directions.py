"""Benchmarks import no tests; tests of the package import of benchmarks nothing but what those share."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Of each folder what its files may import of the project.
MAY = {"onexn_plugins": ("onexn_plugins",), "integrations": ("onexn_plugins",),
       "benchmarks": ("benchmarks", "onexn_plugins"),
       "tests": ("benchmarks.common", "integrations", "onexn_plugins", "tests"),
       "tests/benchmarks": ("benchmarks", "onexn_plugins", "tests")}
OURS = {"onexn_plugins", "integrations", "benchmarks", "tests"}


def imported(path: Path) -> Iterator[str]:
    """Modules and names that a file imports, wherever in it, in full."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def folder_of(path: Path) -> str:
    """The narrowest folder of MAY that holds the file."""
    inside = path.relative_to(ROOT).as_posix()
    return max((folder for folder in MAY if inside.startswith(f"{folder}/")), key=len)


def test_imports_go_one_way() -> None:
    seen, wrong = dict.fromkeys(MAY, 0), []
    for path in sorted(path for folder in OURS for path in (ROOT / folder).rglob("*.py")):
        folder = folder_of(path)
        for name in imported(path):
            if name.split(".")[0] in OURS:
                seen[folder] += 1
                if not any(f"{name}.".startswith(f"{allowed}.") for allowed in MAY[folder]):
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []
    assert all(seen.values()), f"the imports were found: {seen}"
