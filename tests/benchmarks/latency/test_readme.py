import shutil

import pytest

from benchmarks.latency import readme as publishing
from benchmarks.latency.readme import OTHERS, README, RESULTS, filled, others_published, published


def test_the_readme_shows_the_committed_numbers():
    pages, others = published(), others_published()
    readme = README.read_text(encoding="utf-8")
    assert filled(readme, pages, others) == readme
    for page in (*pages.values(), *(page for found in others.values() for page in found.values())):
        assert "+changes" not in page.record["commit"], "published numbers come from a commit"


def test_the_front_page_shows_the_committed_numbers():
    front = (README.parents[2] / "README.md").read_text(encoding="utf-8")
    pages = published()
    for name in ("mobilenet_v2", "resnet50", "efficientnet_lite0"):
        table = pages[name].sections[0].table
        rows = [row for row in table.rows if not row["name"].startswith("1×16")]
        cells = [f"{row['ours_ms']['value']:#.3g} ({row['speedup']['value']:.2f}×)" for row in rows]
        assert " | ".join(cells) in front


@pytest.mark.parametrize(("measured", "taken_into"), [
    (RESULTS, "results"), *((RESULTS / name, f"results/{name}") for name in OTHERS)])
def test_results_are_published_beside_those_of_their_kind_of_processor(measured, taken_into, tmp_path, monkeypatch):
    found = tmp_path / "measured"
    found.mkdir()
    shutil.copy(measured / "mobilenet_v2.json", found)
    monkeypatch.setattr(publishing, "README", tmp_path / "README.md")
    monkeypatch.setattr(publishing, "RESULTS", tmp_path / "results")
    shutil.copy(README, tmp_path)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(publishing, "published", lambda folder=tmp_path / "results": published(folder))
    publishing.publish(found)
    assert [path.relative_to(tmp_path).parent.as_posix() for path in tmp_path.rglob("mobilenet_v2.json")
            if path.parent != found] == [taken_into]
    assert (tmp_path / taken_into / "mobilenet_v2.svg").exists()
    shown = (tmp_path / "README.md").read_text(encoding="utf-8").count("/mobilenet_v2.json)")
    assert shown == 1
    assert f"({taken_into}/mobilenet_v2.json)" in (tmp_path / "README.md").read_text(encoding="utf-8")
