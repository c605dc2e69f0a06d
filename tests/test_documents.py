"""What people read is true: links lead somewhere, files that are named exist, the README's first lines run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", "benchmarks/**/*.md", "integrations/**/*.md")
PAGES = sorted(page for pattern in PATTERNS for page in ROOT.glob(pattern))
FIRST_SCREEN = 45  # lines


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", without_code(page.read_text(encoding="utf-8")))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(name):
    text = without_code((ROOT / name).read_text(encoding="utf-8"))
    backend, package = ROOT / "onexn_plugins" / "tvm_backend", ROOT / "onexn_plugins"
    homes = (ROOT, package, backend, backend / "kernels", backend / "output")
    named = {path for path in re.findall(r"`([\w./]+/[\w./]*|[\w/]+\.(?:py|md|toml))`", text) if "NAME" not in path}
    assert len(named) > 3
    missing = [path for path in sorted(named) if not any((home / path).exists() for home in homes)]
    assert missing == []


def test_the_front_page_has_install_and_code_on_its_first_screen_and_one_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    screen = "\n".join(text.splitlines()[:FIRST_SCREEN])
    code = re.search(r"```python\n(.*?)```", screen, re.DOTALL)
    assert "pip install" in screen
    assert code is not None
    assert len(code[1].strip().splitlines()) == 12
    assert len(re.findall(r"^\|[ :|-]+\|$", text, re.MULTILINE)) == 1


def test_the_kernel_table_has_its_place():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    before, _, rest = text.partition("<!-- kernel table -->")
    table, _, after = rest.partition("<!-- end -->")
    assert before
    assert after
    assert "| --- |" in table


def test_the_first_code_of_the_front_page_runs(tmp_path):
    """As it stands, but for a small network in place of a large one and a smaller image."""
    for toolkit in ("torch_pruning", "tvm", "onnxruntime"):
        pytest.importorskip(toolkit)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    small = "from tests.torch_pruning.networks import small_net"
    script = code[1].replace("from onexn_plugins.zoo import load_model", small).replace(
        'load_model("mobilenet_v2")', "small_net()").replace("224, 224", "16, 16")
    assert script.count("small_net") == 2
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.onnx").exists()
    assert "Latency(" in done.stdout, done.stdout
