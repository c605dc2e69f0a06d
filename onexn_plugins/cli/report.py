"""`onexn report`: the page of a benchmark's JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from onexn_plugins.cli.common import Result
from onexn_plugins.files import check_writable
from onexn_plugins.report import load, to_text, write_html

HELP = "Draw the JSON of the demo or a benchmark as one self-contained HTML page."
EXAMPLE = "onexn report out/demo/report.json --output report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("numbers", metavar="FILE.json", help="what the demo or a benchmark wrote")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE.html",
                        help="the page to write; without it the tables are printed")


def run(arguments: argparse.Namespace) -> Result:
    if arguments.output is not None:
        check_writable(arguments.output)
    page = load(arguments.numbers)
    tables = [f"{section.heading}\n\n{to_text(section.table)}" for section in page.sections if section.table]
    values = {"title": page.title, "sections": [section.heading for section in page.sections]}
    if arguments.output is None:
        return Result(values, "\n\n".join(tables))
    write_html(page, arguments.output)
    return Result({**values, "output": str(arguments.output)}, f"page: {arguments.output}")
