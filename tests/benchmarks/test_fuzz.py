"""A sample of `python -m benchmarks.fuzz`: damaged files and artefacts, judged in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.fuzz.__main__ import main
from benchmarks.fuzz.judge import judge
from benchmarks.fuzz.mutations import mutant
from benchmarks.fuzz.seeds import seed_models


def test_damaged_files_and_artefacts_are_refused_or_right(tmp_path: Path) -> None:
    out = tmp_path / "fuzz.json"
    assert main(["--files", "120", "--artefacts", "40", "--compile-every", "8", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert (found["onnx"]["files"], found["artefacts"]["files"]) == (120, 40)
    assert all(found[kind]["outcomes"]["refused"] for kind in ("onnx", "artefacts"))


def test_what_a_mutation_starts_from_is_right(tmp_path: Path) -> None:
    for number, model in enumerate(seed_models()):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(model.SerializeToString())
        assert judge(path, run=True) == "right"


def test_the_same_number_gives_the_same_file() -> None:
    models = seed_models()
    assert [mutant(models, number) for number in range(50)] == [mutant(models, number) for number in range(50)]
