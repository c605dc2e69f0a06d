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


def test_the_front_page_says_the_committed_counts():
    front = (README.parents[2] / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    counts = {(row["engine"], row["pruning_ratio"]): f"{row['all']:.1f}"
              for row in published()["million_instructions_per_inference"] if row["network"] == "mobilenet_v2"}
    ours, xnnpack = ({ratio: count for (engine, ratio), count in counts.items() if engine == name}
                     for name in ("onexn", "xnnpack"))
    assert (f"MobileNetV2 takes {ours[0.0]} million instructions dense, {ours[0.5]} at 50 %, {ours[0.75]} at 75 % and "
            f"{ours[0.9]} at 90 %") in front
    assert (f"XNNPACK takes {xnnpack[0.0]} dense and, by its sparse kernels, {xnnpack[0.75]} at 75 % and "
            f"{xnnpack[0.9]} at 90 %") in front
    assert f"ncnn's dense network takes {counts['ncnn', 0.0]}" in front


def test_an_engine_that_computes_zeros_is_told_from_one_that_skips_them():
    def row(ratio: float, fma: float) -> dict[str, object]:
        return {"network": "net", "engine": "xnnpack", "pruning_ratio": ratio, "fma": fma}

    rows = [row(0.0, 75.2), row(0.5, 75.2), row(0.75, 25.7)]
    assert [skips_zeros(one, rows) for one in rows] == [None, False, True]
    assert skips_zeros(rows[2], rows[2:]) is None, "nothing is said without a dense count"
