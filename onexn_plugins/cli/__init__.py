"""The `onexn` command: one file per verb, each a thin layer over the public functions.

Exit codes: 0 done, 1 a comparison that was asked for failed, 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from onexn_plugins.cli import (
    bench,
    compile,
    deploy,
    evaluate,
    experiment,
    export,
    inspect,
    prune,
    rearrange,
    repair,
    report,
    run,
    train,
    tune,
)
from onexn_plugins.cli.common import Result
from onexn_plugins.errors import OneXNError

VERBS = (prune, rearrange, repair, train, evaluate, inspect, export, tune, compile, run, bench, deploy, experiment,
         report)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; see `onexn --help`."""
    arguments = _parser().parse_args(argv)
    try:
        with _plain_warnings():
            result: Result = arguments.verb(arguments)
    except OneXNError as error:
        print(f"onexn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("onexn: interrupted", file=sys.stderr)
        return 130
    if int(os.environ.get("RANK", 0)):  # of the processes that torchrun started, the first one speaks
        return result.exit_code
    try:
        print(json.dumps(result.values, indent=2) if arguments.json else result.text, flush=True)
    except BrokenPipeError:  # the reader, `head` for one, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return result.exit_code


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings of this package as a line of text; those of others as Python shows them."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if category.__module__.startswith("onexn_plugins"):
                print(f"onexn: {message}", file=sys.stderr)
            else:
                show(message, category, *place, **more)

        warnings.showwarning = say
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="onexn", description="1×N block pruning: prune, export, compile and measure convolutional networks.")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        name = verb.__name__.rpartition(".")[2]
        added = verbs.add_parser(name, help=verb.HELP, description=verb.HELP, epilog=f"example:\n  {verb.EXAMPLE}",
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
        added.add_argument("--json", action="store_true", help="print JSON for machines instead of a table")
        added.set_defaults(verb=verb.run)
        verb.add_arguments(added)
    return parser
