import json

import pytest

from benchmarks.arm import mca
from benchmarks.arm.page import PARTS, README, counted, filled, published, skips_zeros
from onexn_plugins.report import to_markdown


@pytest.mark.parametrize("path", PARTS, ids=PARTS.get)
def test_the_readme_shows_the_committed_counts(path):
    readme, result = README.read_text(encoding="utf-8"), published(path)
    assert filled(readme, PARTS[path], counted(result, path.name)) == readme
    assert "+changes" not in result["commit"], "published numbers come from a commit"


def test_the_readme_shows_the_committed_cycles():
    readme, result = README.read_text(encoding="utf-8"), json.loads(mca.RESULTS.read_text(encoding="utf-8"))
    assert filled(readme, "mca families", to_markdown(mca.family_table(result["families"]))) == readme
    assert filled(readme, "mca tiles", to_markdown(mca.tile_table(result["a53_tiles"]))) == readme
    assert "+changes" not in result["commit"], "published numbers come from a commit"


def test_the_front_page_shows_the_committed_counts():
    front = (README.parents[2] / "README.md").read_text(encoding="utf-8")
    for row in published()["million_instructions_per_inference"]:
        pruned = f"{row['pruning_ratio']:.0%}".replace("%", " %") if row["pruning_ratio"] else "dense"
        assert f"| {pruned} | {row['all']:.1f} | {row['fma']:.1f} |" in front, row


def test_an_engine_that_computes_zeros_is_told_from_one_that_skips_them():
    def row(ratio: float, fma: float) -> dict[str, object]:
        return {"network": "net", "engine": "xnnpack", "pruning_ratio": ratio, "fma": fma}

    rows = [row(0.0, 75.2), row(0.5, 75.2), row(0.75, 25.7)]
    assert [skips_zeros(one, rows) for one in rows] == [None, False, True]
    assert skips_zeros(rows[2], rows[2:]) is None, "nothing is said without a dense count"
