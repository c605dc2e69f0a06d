"""python -m benchmarks.demo: the whole method, through both toolkits, to a compiled module, with the numbers."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch

from benchmarks.common.record import command_line, record
from benchmarks.demo.settings import FAST, FULL
from onexn_plugins.errors import OneXNError
from onexn_plugins.progress import Progress, StageFailedError
from onexn_plugins.report import Page, save, to_text, write_html


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 with a report, or 1 with the name of the stage that failed and no report."""
    options = _options(arguments)
    # What is timed runs on one thread; and torch's threads, which spin while they wait, stall on busy cores.
    torch.set_num_threads(1)
    try:
        page = _run(options)
        options.out.mkdir(parents=True, exist_ok=True)
        numbers, html = save(page, options.out / "report.json"), write_html(page, options.out / "report.html")
    except StageFailedError as failure:
        if not isinstance(failure.__cause__, OneXNError):
            traceback.print_exception(failure.__cause__)
        print(f"\nThe demo stopped: {failure}\nNo report was written.", file=sys.stderr)
        return 1
    for section in page.sections:
        if section.table:
            print(f"\n{section.heading}\n\n{to_text(section.table)}")
    print(f"\n{page.record['seconds']} s. The report is in {html.resolve()}, its numbers in {numbers.resolve()}")
    return 0


def _run(options: argparse.Namespace) -> Page:
    from benchmarks.demo.efficientnet import EfficientNet
    from benchmarks.demo.page import build
    from benchmarks.demo.small import SmallNetwork

    settings, facts, started = FAST if options.fast else FULL, record(command_line("benchmarks.demo")), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="onexn-demo-") as folder:
        large, small = EfficientNet(settings, Path(folder), options.data), SmallNetwork(settings, Path(folder))
        Progress().run([*large.stages, *small.stages])
    return build(settings, facts | {"seconds": round(time.monotonic() - started, 1)}, large, small)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--fast", action="store_true",
                        help="the same code at tiny sizes, for tests; its numbers mean nothing")
    parser.add_argument("--out", type=Path, default=Path("out/demo"),
                        help="folder for report.html and report.json (default: %(default)s)")
    parser.add_argument("--data", type=Path,
                        help="ImageNet photos, one folder per class in class order: adds top-1 before fine-tuning")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
