"""Damages saved artefacts and loads them.

    python -m benchmarks.fuzz.artefacts FIRST LAST      a JSON line for each

Damage of a disk (bytes changed, files cut or gone) has to be refused. Where another program wrote the metadata and made
the checksums right again, `load` and `run` may refuse or work, and must not do anything else. The library itself is
code: with right checksums it is believed.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.mutations import NUMBERS, SIZES, damaged_bytes
from benchmarks.fuzz.seeds import seed_models
from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model, load
from onexn_plugins.tvm_backend.output.artefact import CHECKSUMS, LIBRARY, METADATA

FILES = (LIBRARY, METADATA, CHECKSUMS)
VALUES: tuple[Any, ...] = (None, True, "", "text", [], {}, [[]], {"": 0}, [None], *SIZES, *NUMBERS)


def saved_network(folder: Path) -> Path:
    """An artefact to damage: a small network with two inputs and two outputs."""
    model = folder / "model.onnx"
    model.write_bytes(seed_models()[2].SerializeToString())
    return compile_model(model).save(folder / "whole")


def damage(folder: Path, number: int) -> bool:
    """Damage the artefact in that folder; whether it must be refused. The same number gives the same damage."""
    draw = random.Random(number)
    if draw.random() < 0.5:
        return _damage_file(folder / draw.choice(FILES), draw)
    return _damage_metadata(folder, draw)


def judge(folder: Path, whole: list[np.ndarray], *, must_refuse: bool) -> str:
    """"refused", "right", or what is wrong."""
    try:
        compiled = load(folder)
        outputs = compiled.run(*inputs())
        json.dumps([layer.to_dict() for layer in compiled.layers])
    except OneXNError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    if must_refuse:
        return "a damaged file was loaded"
    outputs = outputs if isinstance(outputs, list) else [outputs]
    same = len(outputs) == len(whole) and all(map(np.array_equal, outputs, whole))
    return "right" if same else "other outputs"


def inputs() -> list[np.ndarray]:
    return [np.random.default_rng(seed).random((1, 8, 6, 6), np.float32) for seed in range(2)]


def _damage_file(path: Path, draw: random.Random) -> bool:
    content = path.read_bytes()
    if draw.random() < 0.1:
        path.unlink()
        return True
    changed = damaged_bytes(content, draw)
    path.write_bytes(changed)
    return changed != content


def _damage_metadata(folder: Path, draw: random.Random) -> bool:
    """Another value somewhere in the JSON, checksums made right again."""
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    if draw.random() < 0.2:
        content = damaged_bytes(json.dumps(metadata).encode(), draw)
    else:
        _change(metadata, draw)
        content = json.dumps(metadata).encode()
    (folder / METADATA).write_bytes(content)
    (folder / CHECKSUMS).write_text("".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in (LIBRARY, METADATA)))
    return False


def _change(value: Any, draw: random.Random) -> None:
    """Walk down at random; change or remove what is found there."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw.choice(keys)
    deeper = isinstance(value[key], (dict, list)) and len(value[key]) > 0
    if deeper and draw.random() < 0.8:
        _change(value[key], draw)
    elif draw.random() < 0.2:
        del value[key]
    else:
        value[key] = draw.choice(VALUES)


def main(first: int, last: int) -> None:
    with tempfile.TemporaryDirectory(prefix="onexn-fuzz-") as name:
        saved, copy = saved_network(Path(name)), Path(name) / "copy"
        whole = load(saved).run(*inputs())
        assert isinstance(whole, list)
        for number in range(first, last):
            print(json.dumps({"number": number}), flush=True)
            shutil.copytree(saved, copy)
            must_refuse = damage(copy, number)
            print(json.dumps({"number": number, "outcome": judge(copy, whole, must_refuse=must_refuse)}), flush=True)
            shutil.rmtree(copy)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
