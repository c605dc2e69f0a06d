"""Latency of pruned networks beside every engine that is installed, interleaved on one core.

    python -m benchmarks.latency setup      an environment per engine, in .peers/ (a few minutes, 4 GB)
    python -m benchmarks.latency            prepare and measure; what is done at this commit is not done again
    python -m benchmarks.latency --only resnet50
    python -m benchmarks.latency prepare    export, convert and compile alone, which needs no quiet machine
    python -m benchmarks.latency publish    take what was measured into results/ and README.md
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from benchmarks.common.record import command_line, commit, record
from benchmarks.latency import pages, readme
from benchmarks.latency.engines import DENSE, OURS, PEAK, SPARSE, TITLES
from benchmarks.latency.environments import DEFAULT_FOLDER, Environments
from benchmarks.latency.measure import measure
from benchmarks.latency.parts import PARTS, Part
from benchmarks.latency.store import Store
from onexn_plugins.errors import OneXNError
from onexn_plugins.progress import Progress
from onexn_plugins.report import load, save, to_text, write_html

PACKAGES = ("torch", "torch-pruning", "apache-tvm", "onnx", "onnxruntime", "numpy", "timm", "ziglang")


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 1 where a part could not be measured; the others are measured all the same."""
    options = _options(arguments)
    torch.set_num_threads(1)
    environments, progress = Environments(options.peers.resolve()), Progress()
    if options.command == "setup":
        return _set_up(environments, progress)
    if options.command == "publish":
        return readme.publish(options.out)
    store, failed = Store(environments), 0
    for name in options.only or PARTS:
        part = PARTS[name]
        try:
            with progress.stage(part.title):
                if options.command == "prepare":
                    _prepare(part, environments, store, progress)
                elif options.only is None and _is_done(options.out / f"{name}.json"):
                    progress.say("already measured at this commit; name it with --only to measure it again")
                else:
                    _run(part, options, environments, store, progress)
        except OneXNError as error:
            print(f"{part.title}: {error}", file=sys.stderr)
            failed += 1
    return int(bool(failed))


def _set_up(environments: Environments, progress: Progress) -> int:
    for name in (*DENSE, *SPARSE):
        with progress.stage(TITLES[name]):
            try:
                progress.say(environments.set_up(name))
            except LookupError as reason:
                progress.say(f"left out: {reason}")
    return 0


def _prepare(part: Part, environments: Environments, store: Store, progress: Progress) -> None:
    versions, _ = environments.installed() if part.peers else ({}, {})
    own = {name: environments.version(name) for name in (OURS, PEAK)}
    _, failed = store.prepare_all(part.contenders(), versions | own, progress)
    for contender, reason in failed.items():
        progress.say(f"{contender.title}: {reason}")


def _run(part: Part, options: argparse.Namespace, environments: Environments, store: Store,
         progress: Progress) -> None:
    facts, started, rounds = record(command_line("benchmarks.latency"), PACKAGES), time.monotonic(), options.rounds
    measured = measure(part, environments, store, progress, rounds or part.rounds)
    page = pages.build(part, measured, rounds or part.rounds,
                       facts | {"seconds": round(time.monotonic() - started, 1)})
    options.out.mkdir(parents=True, exist_ok=True)
    save(page, options.out / f"{part.name}.json")
    write_html(page, options.out / f"{part.name}.html")
    for section in page.sections:
        if section.table:
            print(f"\n{to_text(section.table)}\n")
    for name, reason in measured.absent.items():
        progress.say(f"left out: {name}: {reason}")


def _is_done(path: Path) -> bool:
    """Whether that file holds numbers of this very commit."""
    here = commit()
    return path.exists() and here is not None and "+" not in here and load(path).record.get("commit") == here


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("run", "setup", "prepare", "publish"), default="run")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, help="turns of every contender (default: each part's own)")
    parser.add_argument("--peers", type=Path, default=DEFAULT_FOLDER, help="folder of the engines' environments")
    parser.add_argument("--out", type=Path, default=Path("out/latency"), help="folder (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
