"""Every benchmark is in the table, explains itself and is read about; what it measures takes too long for a test."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks.__main__ as runner
from benchmarks.table import BENCHMARKS

FOLDER = Path(__file__).parents[2] / "benchmarks"
# What a benchmark starts in processes of its own, what goes on from its results, and what writes its README.
PARTS = {"arm.run_emulated", "arm.sparse_litert", "common.emulation.on_board", "demo.readme",
         "experiment.comparison_trial", "experiment.search_trial", "fuzz.artefacts", "fuzz.networks.worker",
         "fuzz.worker", "latency.worker", "networks.case", "networks.tasks.case", "onnx_backend.worker",
         "rearrangement.one_network", "rearrangement.readme", "repair.latency"}


def runs(path: Path) -> bool:
    """Whether a file does something when it is run."""
    return any(isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
               for node in ast.parse(path.read_text(encoding="utf-8")).body)


def test_no_benchmark_is_missing_in_the_table():
    found = {".".join(path.relative_to(FOLDER).with_suffix("").parts).removesuffix(".__main__")
             for path in FOLDER.rglob("*.py") if runs(path) and path.parent != FOLDER}
    assert found >= PARTS
    assert found - PARTS == {benchmark.name for benchmark in BENCHMARKS}
    folders = {path.parent.name for path in FOLDER.glob("*/__init__.py")} - {"common"}
    assert folders == {benchmark.name.split(".")[0] for benchmark in BENCHMARKS}


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_its_answer_and_its_row_in_the_readme_are_there(benchmark):
    assert (FOLDER / benchmark.answer).is_file()
    assert benchmark.question.endswith("?")
    assert benchmark.markdown in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()


def test_every_benchmark_explains_itself():
    commands = [f"benchmarks.{benchmark.name}" for benchmark in BENCHMARKS]
    script = f"""
import runpy, sys
for command in {commands!r}:
    sys.argv = [command, "--help"]
    try:
        runpy.run_module(command, run_name="__main__")
    except SystemExit as end:
        assert not end.code, command
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=FOLDER.parent, capture_output=True, text=True,
                            check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("usage:") == len(commands), result.stdout


def test_without_a_name_they_are_listed(capsys):
    assert runner.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(BENCHMARKS)
    for benchmark, line in zip(BENCHMARKS, lines, strict=True):
        assert line.split("  ")[0].rstrip() == benchmark.command
        assert line.endswith(benchmark.question)


def test_those_named_run_in_turn_and_a_failing_one_is_named(monkeypatch, capsys):
    ran = []

    def run(command, check):
        ran.append(command[-1])
        return subprocess.CompletedProcess(command, int(command[-1] == "benchmarks.arm"))

    monkeypatch.setattr(subprocess, "run", run)
    assert runner.main(["arm", "density"]) == 1
    assert ran == ["benchmarks.arm", "benchmarks.density"]
    assert capsys.readouterr().err == "failed: arm\n"
    assert runner.main(["--all"]) == 1
    assert ran[2:] == [f"benchmarks.{benchmark.name}" for benchmark in BENCHMARKS]


def test_a_benchmark_that_there_is_not(capsys):
    with pytest.raises(SystemExit) as end:
        runner.main(["speed"])
    assert end.value.code == 2
    assert "there is no benchmark speed" in capsys.readouterr().err
