from benchmarks.latency.readme import README, filled, published


def test_the_readme_shows_the_committed_numbers():
    pages = published()
    readme = README.read_text(encoding="utf-8")
    assert filled(readme, pages) == readme
    for page in pages.values():
        assert "+changes" not in page.record["commit"], "published numbers come from a commit"
