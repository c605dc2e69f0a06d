from benchmarks.arm.page import README, filled, published, skips_zeros


def test_the_readme_shows_the_committed_counts():
    readme, result = README.read_text(encoding="utf-8"), published()
    assert filled(readme, result) == readme
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
