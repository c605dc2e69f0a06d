"""The page of an experiment as a real browser shows it: laid out, drawn, readable on a phone, with nothing fetched."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from onexn_plugins.nni.experiment import ExperimentResult, Trial, to_page
from onexn_plugins.report import write_html
from tests.tools import program

PRUNERS = ("OneXNPruner", "L1NormPruner", "LevelPruner")
TRIALS = tuple(
    Trial(f"t{index}", "SUCCEEDED", {"default": 0.99 - 0.01 * index, "latency_ms": 1.0 + index, "onnxruntime_ms": 2.5,
                                     "pruner": pruner, "sparse_ratio": 0.5, "macs": 10**6 * (index + 1)})
    for index, pruner in enumerate(PRUNERS))
RESULT = ExperimentResult("abc", "small", "/somewhere", "done", "", (*TRIALS, Trial("t9", "FAILED", said="it broke")),
                          {"command": "onexn experiment experiment.yaml"})
# Measures what the browser made of the page and leaves it where --dump-dom shows it.
PROBE = """<script>
window.onerror = (message) => { document.title = "error: " + message; };
window.onload = () => {
  const box = (element) => { const r = element.getBoundingClientRect(); return [r.width, r.height]; };
  const found = {
    width: innerWidth, scroll: document.documentElement.scrollWidth,
    rows: document.querySelectorAll("tbody tr").length,
    plot: box(document.querySelector("figure svg")),
    heading: box(document.querySelector("h1")),
    text: document.body.innerText,
    fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
  };
  const pre = document.createElement("pre");
  pre.id = "probe"; pre.textContent = encodeURIComponent(JSON.stringify(found));
  document.body.append(pre);
};
</script></body>"""


def browse(*arguments: str) -> str:
    browser = program("chromium", "chromium-headless-shell", "google-chrome", package="chromium-headless-shell")
    done = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                           "--virtual-time-budget=2000", *arguments], capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen(page: Path, folder: Path, width: int) -> dict:
    probed = folder / "probed.html"
    probed.write_text(page.read_text().replace("</body>", PROBE))
    html = browse(f"--window-size={width},900", f"--user-data-dir={folder}/profile", "--dump-dom", probed.as_uri())
    return json.loads(unquote(re.search(r'<pre id="probe">([^<]*)', html).group(1)))


@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_is_laid_out_and_fits(tmp_path, width):
    found = seen(write_html(to_page(RESULT), tmp_path / "page.html"), tmp_path, width)
    assert found["width"] == width
    assert found["scroll"] <= width, "the page scrolls sideways"
    assert found["rows"] == len(TRIALS)
    assert min(found["plot"]) > 150
    assert found["plot"][0] <= width
    assert found["heading"][1] > 10
    assert found["fetched"] == []
    for text in ("small", "3 of 4 trials", "it broke", "Accuracy against latency", *PRUNERS, "onexn experiment"):
        assert text in found["text"]


def test_the_plot_is_drawn_in_colour(tmp_path):
    matplotlib = pytest.importorskip("matplotlib.image")
    page, picture = write_html(to_page(RESULT), tmp_path / "page.html"), tmp_path / "page.png"
    browse("--window-size=1200,1600", f"--user-data-dir={tmp_path}/profile", f"--screenshot={picture}", page.as_uri())
    pixels = (matplotlib.imread(picture)[..., :3] * 255).astype(int)
    spread = pixels.max(-1) - pixels.min(-1)
    colours = np.unique(pixels[spread > 60] // 48, axis=0)
    assert len(colours) >= len(PRUNERS), "each pruner has a colour of its own"
    assert (spread > 60).sum() > 100
