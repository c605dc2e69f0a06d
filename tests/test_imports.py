"""The core needs torch, numpy and scipy alone; a toolkit is imported only by its adapter."""

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from onexn_plugins.errors import MissingDependencyError, OneXNError

ROOT = Path(__file__).resolve().parents[1]
TOOLKITS = ("torch_pruning", "nni", "tvm", "onnx", "onnxruntime", "onnxscript", "torchvision", "timm", "matplotlib")

# What Python does for a package that is not there: importing it fails, and no spec is found.
BLOCKED = """
import sys
sys.modules.update(dict.fromkeys({toolkits!r}))
"""


def run_without_toolkits(code: str) -> subprocess.CompletedProcess[str]:
    script = BLOCKED.format(toolkits=TOOLKITS) + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_the_core_imports_without_any_toolkit():
    result = run_without_toolkits("import onexn_plugins; print(sorted(onexn_plugins.__all__))")
    assert result.returncode == 0, result.stderr
    assert "fold" in result.stdout


def test_the_core_does_not_import_installed_toolkits():
    code = f"import sys, onexn_plugins; print([name for name in {TOOLKITS!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(("call", "extra"), [
    ("import torch; onexn_plugins.export_onnx(torch.nn.Conv2d(8, 8, 1), torch.ones(1, 8, 2, 2), 'x.onnx')", "tvm"),
    ("import onexn_plugins.torch_pruning", "torch-pruning"),
    ("import onexn_plugins.nni", "nni"),
    ("from onexn_plugins.tvm_backend import compile_model; compile_model('x.onnx')", "tvm"),
])
def test_a_missing_toolkit_names_the_extra_to_install(call, extra):
    result = run_without_toolkits(f"import onexn_plugins\n{call}")
    assert f"pip install 'onexn-plugins[{extra}]'" in result.stderr.splitlines()[-1], result.stderr


@pytest.mark.parametrize("script", sorted(
    (ROOT / "integrations").glob("*/*.py")),
    ids=lambda path: path.name)
def test_what_users_copy_imports_public_names_alone(script):
    """A name is public if its module lists it in __all__."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("onexn_plugins"):
            module = importlib.import_module(node.module)
            names = {alias.name for alias in node.names}
            assert not any(part.startswith("_") for part in node.module.split("."))
            assert names <= set(getattr(module, "__all__", ())), (node.module, names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("onexn_plugins"):
                    assert hasattr(importlib.import_module(alias.name), "__all__"), alias.name


def test_errors_carry_their_parts_and_survive_pickling():
    error = pickle.loads(pickle.dumps(OneXNError("conv1", "is too narrow", "Widen it")))
    assert (error.layer, error.reason, error.fix) == ("conv1", "is too narrow", "Widen it")
    assert str(error) == "conv1: is too narrow. Widen it."
    missing = pickle.loads(pickle.dumps(MissingDependencyError("nni", "nni")))
    assert isinstance(missing, ImportError)
    assert missing.extra == "nni"
