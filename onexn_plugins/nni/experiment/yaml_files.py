"""YAML and JSON files read so that what is wrong in them is named, with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from onexn_plugins.errors import OneXNError, first_line


def read_yaml(path: Path) -> Any:
    """What a YAML or JSON file holds.

    Raises:
        OneXNError: it cannot be read, is neither, or says one thing twice.
    """
    if set("\0\n") & set(str(path)):
        raise OneXNError("config", f"is no path of a file: {str(path)[:60]!r}", "Text in YAML: yaml.safe_load it first")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise OneXNError(str(path), f"cannot be read: {reason}", "Check the path, and that it is text") from error
    try:
        return json.loads(text, object_pairs_hook=_once_each)
    except ValueError:
        pass  # YAML, or its reader says what is wrong
    try:
        return yaml.load(text, _OnceEach)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise OneXNError(str(path), f"is not valid YAML{place}: {problem}", "Mend the file") from error


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


class _OnceEach(yaml.SafeLoader):
    """Of a key that stands twice in a mapping YAML's own loader keeps one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands there twice", problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)
