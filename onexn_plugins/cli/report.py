"""`onexn report`: the page of a benchmark's JSON, or of an NNI experiment."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from onexn_plugins.cli.common import Result
from onexn_plugins.files import check_writable
from onexn_plugins.report import Page, load, to_text, write_html

HELP = "Draw the JSON of the demo or a benchmark, or an NNI experiment, as one self-contained HTML page."
EXAMPLE = "onexn report out/demo/report.json --output report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("numbers", metavar="WHAT",
                        help="the JSON that the demo, a benchmark or an experiment wrote, or an "
                        "experiment's folder, or its id in NNI's list")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE.html",
                        help="the page to write; without it the tables are printed")


def run(arguments: argparse.Namespace) -> Result:
    if arguments.output is not None:
        check_writable(arguments.output)
    page = _page(arguments.numbers)
    parts = [f"{page.title}: {page.summary}"]
    for section in page.sections:
        if section.table or section.notes:
            parts += [section.heading, *([to_text(section.table)] if section.table else []), "\n".join(section.notes)]
    values = {"title": page.title, "sections": [section.heading for section in page.sections]}
    if arguments.output is None:
        return Result(values, "\n\n".join(part for part in parts if part))
    write_html(page, arguments.output)
    return Result({**values, "output": str(arguments.output)}, f"page: {arguments.output}")


def _page(what: str) -> Page:
    """A report as it stands, or the page of an experiment."""
    path = Path(what)
    if path.is_dir() or not (path.exists() or path.suffix) or _is_experiment(path):
        from onexn_plugins.nni.experiment import load_experiment, to_page

        return to_page(load_experiment(what))
    return load(path)


def _is_experiment(path: Path) -> bool:
    """Its JSON says so; whatever else is wrong with the file is for `load` to say."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["format"]).startswith("onexn-experiment/")
    except (OSError, ValueError, KeyError, TypeError):
        return False
