"""Reports: what is shown is what the JSON holds, in one page that needs nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.errors import OneXNError
from onexn_plugins.report import (
    Column,
    Highlight,
    Page,
    Plot,
    Section,
    Table,
    load,
    save,
    to_markdown,
    to_text,
    write_html,
    write_svg,
)
from onexn_plugins.report.cells import STYLES, scientific, significant, write
from onexn_plugins.report.page import to_html
from onexn_plugins.report.plots import draw

COLUMNS = (Column("name", "Network"), Column("ms", "Latency", "milliseconds"), Column("peer", "Peer", "milliseconds"),
           Column("right", "Accuracy", "percent"), Column("way", "Way"))
ROWS = (
    {"name": "dense <b>", "ms": 8.123, "peer": {"value": 9.5, "low": 9.25, "high": 10.0}, "right": 0.98, "way": "a"},
    {"name": "1×4 | 50 %", "ms": {"value": 0.1428, "low": 0.1, "high": 0.2}, "peer": None, "right": 0.97, "way": "b"},
)
TABLE = Table(COLUMNS, ROWS)
BARS = Plot("bars", "Latency & co", ("ms", "peer"))
POINTS = Plot("points", "Accuracy against latency", ("right",), "ms", "way", "name")
PAGE = Page("Title <i>", "Summary", (Section("One", ("Text",), TABLE, (BARS, POINTS), ("Note",)), Section("Two")),
            (Highlight(2.5, "times", "faster"),), {"command": "run it", "versions": {"torch": "2", "absent": None}})

cells = st.one_of(
    st.none(), st.text(max_size=8), st.booleans(), st.floats(1e-12, 1e9),
    st.fixed_dictionaries({"value": st.floats(1, 2), "low": st.floats(0, 1), "high": st.floats(2, 3)}),
)


@pytest.mark.parametrize(("style", "low", "high", "written"), [
    ("points", 3.51, 4.21, "+3.51–+4.21"), ("points", -1.5, 0.25, "-1.50–+0.25"), ("percent", 0.5, 0.6, "50.0–60.0 %"),
    ("times", 1.2, 3.0, "1.20–3.00×")])
def test_an_interval_names_its_unit_once_and_keeps_its_signs(style, low, high, written):
    assert write({"value": (low + high) / 2, "low": low, "high": high}, style)[1] == written


@given(st.lists(st.fixed_dictionaries({"name": st.text(max_size=5), "ms": cells}), min_size=1, max_size=4))
def test_what_was_saved_is_loaded(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("report") / "report.json"
    page = Page("t", "s", (Section("h", table=Table(COLUMNS[:2], tuple(rows), transposed=True)),))
    assert load(save(page, path)) == page


def test_a_page_survives_the_way_through_its_file(tmp_path):
    assert load(save(PAGE, tmp_path / "report.json")) == PAGE


@pytest.mark.parametrize("damage", [
    lambda text: text[: len(text) // 2],
    lambda text: "",
    lambda text: "[]",
    lambda text: text.replace("onexn-report/1", "onexn-report/9"),
    lambda text: text.replace('"sections"', '"chapters"'),
    lambda text: text.replace('"style"', '"fashion"'),
])
def test_a_damaged_file_is_refused_by_name(tmp_path, damage):
    path = save(PAGE, tmp_path / "report.json")
    path.write_text(damage(path.read_text()))
    with pytest.raises(OneXNError, match=r"report\.json"):
        load(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(OneXNError, match="absent"):
        load(tmp_path / "absent.json")


@pytest.mark.parametrize("section", [
    Section("s", table=Table(COLUMNS, ())),
    Section("s", table=Table((Column("ms", "Latency", "furlongs"),), ROWS)),
    Section("s", table=TABLE, plots=(Plot("pie", "p", ("ms",)),)),
    Section("s", table=TABLE, plots=(Plot("bars", "p", ("speed",)),)),
    Section("s", plots=(BARS,)),
])
def test_an_inconsistent_page_is_never_written(tmp_path, section):
    older = tmp_path / "report.html"
    older.write_text("older")
    with pytest.raises(OneXNError):
        write_html(Page("t", "s", (section,)), older)
    assert older.read_text() == "older"
    assert list(tmp_path.iterdir()) == [older]


def test_values_that_are_no_numbers_cannot_be_saved(tmp_path):
    page = Page("t", "s", (Section("h", table=Table(COLUMNS[:2], ({"name": "a", "ms": float("nan")},))),))
    with pytest.raises(ValueError):
        save(page, tmp_path / "report.json")
    assert not list(tmp_path.iterdir())


class Links(HTMLParser):
    """Collects whatever a browser would fetch or run, every id, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "link", "img", "iframe"):
            self.fetched.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.fetched.append(value)

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_else_and_shows_every_number(tmp_path):
    html = write_html(PAGE, tmp_path / "report.html").read_text()
    page = Links(html)
    assert page.fetched == []
    assert "@import" not in html
    assert "url(http" not in html
    assert len(page.ids) == len(set(page.ids))
    for row in ROWS:
        for column in COLUMNS:
            for text in write(row[column.key], column.style):
                assert text in page.text
    for text in ("Title <i>", "2.50×", "run it", "unknown", "Note"):
        assert text in page.text


def test_the_page_changes_with_the_json_alone(tmp_path):
    path = save(PAGE, tmp_path / "report.json")
    data = json.loads(path.read_text())
    data["sections"][0]["table"]["rows"][0]["ms"] = 77.7
    path.write_text(json.dumps(data))
    html = to_html(load(path))
    assert html.count("77.7 ms") == 2  # in the table and on its bar
    assert "8.12 ms" not in html


@pytest.mark.parametrize("plot", [BARS, POINTS])
def test_plots_are_svg_in_the_colours_of_the_page(plot):
    svg = draw(plot, TABLE, "p")
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert root.get("aria-label") == plot.title
    assert "var(--series-1)" in svg
    assert "var(--ink)" in svg
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert all(name.startswith("p-") for name in ids)
    used = re.findall(r'(?:href="|url\()#([^")]+)', svg)
    assert set(used) <= set(ids)
    assert draw(plot, TABLE, "p") == svg


def test_a_picture_alone_brings_its_colours(tmp_path):
    text = write_svg(BARS, TABLE, tmp_path / "bars.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    for variable in set(re.findall(r"var\((--[a-z0-9-]+)\)", text)):
        assert f"{variable}: #" in text


def test_a_cell_without_a_number_has_no_bar():
    svg = draw(BARS, TABLE, "p")
    bars = [text for text in re.findall(r">([\d.]+ ms)</text>", svg) if len(text) > len("10 ms")]
    assert sorted(bars) == ["0.143 ms", "8.12 ms", "9.50 ms"]


def test_terminal_tables_are_aligned():
    lines = to_text(TABLE).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert len({len(line) for line in lines}) == 1


def test_markdown_escapes_bars_and_keeps_intervals():
    lines = to_markdown(TABLE).splitlines()
    assert "9.50 ms (9.25–10.0 ms)" in lines[2]
    assert r"1×4 \| 50 %" in lines[3]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(COLUMNS) + 1}


def test_a_transposed_table_has_a_line_for_each_quantity():
    lines = to_markdown(Table(COLUMNS, ROWS, transposed=True)).splitlines()
    assert lines[0].startswith("| Network | dense <b> |")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| Latency", "| Peer", "| Accuracy", "| Way"]


@given(st.floats(1e-9, 1e9))
def test_significant_digits_keep_three(value):
    text = significant(value)
    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=0.005)


@pytest.mark.parametrize(("value", "text"), [
    (0, "0"), (1.24e-15, "1.2×10⁻¹⁵"), (3e8, "3.0×10⁸"), (9.96e-7, "1.0×10⁻⁶"),
])
def test_scientific(value, text):
    assert scientific(value) == text


@pytest.mark.parametrize("style", STYLES)
def test_every_style_says_what_is_missing(style):
    assert write(None, style) == ("–", "")
    assert write("not run", style) == ("not run", "")
