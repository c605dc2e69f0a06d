"""Lightning beside the adapter. It is not in our environment: every import of NNI would wait for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.nni.experiment.running import ROOT

PACKAGES = ("pytorch-lightning==2.6.1", "torchmetrics", "lightning-utilities")
SCRIPT = ROOT / "tests" / "nni" / "lightning_epochs.py"


@pytest.fixture(scope="module")
def lightning(tmp_path_factory):
    """A folder that holds Lightning; what it needs otherwise is there."""
    folder = tmp_path_factory.mktemp("lightning")
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder),
                           *PACKAGES], capture_output=True, text=True, check=False)
    if done.returncode and os.environ.get("CI") != "true":
        pytest.skip(f"left out: Lightning cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    assert done.returncode == 0, done.stderr
    return folder


def python(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300,
                          check=False)


def test_pruners_train_by_epochs(lightning, tmp_path):
    done = python(lightning, str(SCRIPT), str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines() if line.startswith("result")]
    assert [(words[1], words[2]) for words in found] == [
        ("L1NormPruner", "False"), ("L1NormPruner", "True"), ("OneXNPruner", "False"), ("OneXNPruner", "True")]
    assert all(float(words[3]) == 0.5 for words in found), found


def test_a_torchvision_of_another_torch_does_not_break_the_import(tmp_path):
    """As pip leaves it with a CPU torch: torchvision asks for an operator that its library did not bring."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torch\nif not hasattr(torch.ops.torchvision, 'nms'):\n"
        "    raise RuntimeError('operator torchvision::nms does not exist')\n")
    (tmp_path / "pytorch_lightning").mkdir()
    (tmp_path / "pytorch_lightning" / "__init__.py").write_text(
        "import torchvision\n__version__ = '2.5.0'\n")
    done = python(tmp_path, "-c", "import sys, onexn_plugins.nni; print('torchvision' in sys.modules)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("True")
