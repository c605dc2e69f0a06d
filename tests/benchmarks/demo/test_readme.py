from benchmarks.demo.readme import NUMBERS, README, filled
from onexn_plugins.report import load


def test_the_readme_shows_the_numbers_of_the_committed_report():
    readme = README.read_text(encoding="utf-8")
    page = load(NUMBERS)
    assert filled(readme, page) == readme
    assert "+changes" not in page.record["commit"], "published numbers come from a commit"
