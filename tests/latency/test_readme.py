from benchmarks.latency.readme import AVX2, README, filled, published


def test_the_readme_shows_the_committed_numbers():
    pages, avx2 = published(), published(AVX2)
    readme = README.read_text(encoding="utf-8")
    assert filled(readme, pages, avx2) == readme
    for page in (*pages.values(), *avx2.values()):
        assert "+changes" not in page.record["commit"], "published numbers come from a commit"


def test_the_front_page_shows_the_committed_numbers():
    front = (README.parents[2] / "README.md").read_text(encoding="utf-8")
    pages = published()
    for name in ("mobilenet_v2", "resnet50", "efficientnet_lite0"):
        table = pages[name].sections[0].table
        rows = [row for row in table.rows if not row["name"].startswith("1×16")]
        cells = [f"{row['ours_ms']['value']:#.3g} ({row['speedup']['value']:.2f}×)" for row in rows]
        assert " | ".join(cells) in front
