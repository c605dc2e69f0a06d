"""Every benchmark's command loads; what it measures takes too long for a test."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("benchmarks/*/__main__.py"))
COMMANDS += ["benchmarks.rearrangement.kept_l1", "benchmarks.rearrangement.networks"]


def test_every_benchmark_explains_itself():
    assert len(COMMANDS) > 5
    script = f"""
import runpy, sys
for command in {COMMANDS!r}:
    sys.argv = [command, "--help"]
    try:
        runpy.run_module(command, run_name="__main__")
    except SystemExit as end:
        assert not end.code, command
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("usage:") == len(COMMANDS), result.stdout
