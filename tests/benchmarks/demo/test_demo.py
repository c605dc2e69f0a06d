"""`python -m benchmarks.demo --fast`: the demo itself at tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onexn_plugins.report import load
from onexn_plugins.report.cells import bounds, number

ROOT = Path(__file__).parents[3]


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchmarks.demo", "--fast", *arguments], cwd=ROOT, text=True,
                          capture_output=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(what it printed, the report's folder)."""
    out = tmp_path_factory.mktemp("demo")
    done = run_demo("--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, out


def test_it_says_what_it_does_and_where_the_report_is(demo):
    printed, out = demo
    stages = [line for line in printed.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in stages] == [f"[{number}/10" for number in range(1, 11)]
    assert str(out / "report.html") in printed
    assert str(out / "report.json") in printed
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json"]


def test_its_table_is_whole_and_consistent(demo):
    page = load(demo[1] / "report.json")
    dense, pruned = page.sections[0].table.rows
    assert pruned["blocks"] == pytest.approx(0.75, abs=0.001)
    assert pruned["weights"] == pytest.approx(0.75, abs=0.001)
    assert pruned["retained_after"] > pruned["retained_before"]
    assert 0 <= pruned["proof_error"] <= 1e-9
    assert pruned["same_masks"] == 32
    assert pruned["macs"] < 0.5 * dense["macs"]
    assert pruned["host_bytes"] < 0.7 * dense["host_bytes"]
    assert pruned["arm_bytes"] < 0.7 * dense["arm_bytes"]
    for row in (dense, pruned):
        assert 0 <= row["host_difference"] <= 1e-4
        assert row["arm_bytes"] > 1e6
        for key in ("onnxruntime_ms", "ours_ms", "speedup"):
            low, high = bounds(row[key])
            assert 0 < low <= number(row[key]) <= high


def test_three_ways_stand_side_by_side_at_equal_work(demo):
    dense, blocks, weights, filters = load(demo[1] / "report.json").sections[1].table.rows
    assert (blocks["ratio"], weights["ratio"], filters["ratio"]) == (0.75,) * 3
    assert weights["macs"] == pytest.approx(blocks["macs"], rel=0.02)
    assert 0.5 * blocks["macs"] < filters["macs"] <= 1.001 * blocks["macs"]  # widths are multiples of 8
    assert dense["macs"] > 1.5 * blocks["macs"]
    assert all(0 <= number(row["accuracy"]) <= 1 for row in (dense, blocks, weights, filters))


def test_the_record_stands_on_the_page(demo):
    page, html = load(demo[1] / "report.json"), (demo[1] / "report.html").read_text()
    assert page.record["command"].startswith("python -m benchmarks.demo --fast")
    assert page.record["versions"]["torch"] in html
    assert page.record["machine"]["processor"] in html


def test_a_failing_stage_is_named_and_leaves_no_report(tmp_path):
    done = run_demo("--out", str(tmp_path / "out"), "--data", str(tmp_path / "absent"))
    assert done.returncode == 1
    assert "stage 1 of 11 failed" in done.stderr
    assert "0 class folders" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
