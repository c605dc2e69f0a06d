"""The paper's second command (github.com/lmbxmu/1xN, model_tune.py): tune an ONNX file, compile it, time it.

    python -m benchmarks.model_tune --onnx_path pruned.onnx --bsr 4 --bsc 1 --sparsity 0.5
    python -m benchmarks.model_tune --onnx_path pruned.onnx --bsr 4 --bsc 1 --sparsity 0.5 \\
        --rpc 127.0.0.1:9190 --key pixel2 --target cortex-a76

Theirs tunes for a phone behind an RPC tracker; this tunes for --target behind --rpc, or for this machine without it.
What is found is kept beside the file, in NAME.json, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from onexn_plugins.cli import main as onexn
from onexn_plugins.errors import OneXNError
from onexn_plugins.export import read_pattern


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 the board's output differs, 2 bad input."""
    arguments = _parser().parse_args(argv)
    try:
        for note in notes(arguments):
            print(note, flush=True)
    except OneXNError as error:
        print(f"benchmarks.model_tune: {error}", file=sys.stderr)
        return 2
    path, database = str(arguments.onnx_path), str(arguments.onnx_path.with_suffix(".json"))
    board = ["--rpc", arguments.rpc, *(["--key", arguments.key] if arguments.key else [])] if arguments.rpc else []
    code = onexn(["tune", path, "--database", database, "--trials", str(arguments.trials), "--target",
                  arguments.target, *board])
    if code:
        return code
    if not board:
        return onexn(["bench", path, "--tuning", database])
    return onexn(["deploy", path, "--target", arguments.target, "--tuning", database, *board])


def notes(arguments: argparse.Namespace) -> list[str]:
    """What the flags mean for this file.

    Raises:
        OneXNError: there is no such file, or its blocks are not of the shape that was given.
    """
    if arguments.bsc != 1:
        raise OneXNError("--bsc", f"blocks of {arguments.bsc} input channels are not 1×N blocks", "Give --bsc 1")
    if not 0 <= arguments.sparsity <= 1:
        raise OneXNError("--sparsity", f"must be from 0 to 1, got {arguments.sparsity}", "It is a fraction of blocks")
    if not arguments.rpc and arguments.target != "host":
        raise OneXNError("--target", f"{arguments.target} is timed on a board", "Give its --rpc HOST:PORT too")
    pattern = _pattern(arguments.onnx_path)
    other = [entry for entry in pattern.values() if entry["block_size"] > arguments.bsr]
    if other:
        raise OneXNError("--bsr", f"{other[0]['layer']} was pruned in blocks of {other[0]['block_size']}, not "
                         f"{arguments.bsr}", f"Give --bsr {other[0]['block_size']}")
    enough = sum(1 - entry["kept"] / entry["blocks"] >= arguments.sparsity for entry in pattern.values())
    return [f"--sparsity {arguments.sparsity:g} decides nothing here: a layer becomes sparse where that is expected to "
            f"be faster. {enough} of {len(pattern)} pruned layers lack at least so many of their blocks"]


def _pattern(path: Path) -> dict[str, dict[str, int]]:
    import onnx

    try:
        return read_pattern(onnx.load(str(path)))
    except OneXNError:
        raise
    except Exception as error:
        raise OneXNError(str(path), f"cannot be read as ONNX: {error}", "Give the file that was exported") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_tune", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx_path", type=Path, required=True, help="the network")
    parser.add_argument("--bsr", type=int, required=True, help="rows of a block: N, output channels")
    parser.add_argument("--bsc", type=int, required=True, help="columns of a block: 1, one input channel")
    parser.add_argument("--sparsity", type=float, required=True, help="fraction of zero blocks to make a layer sparse")
    parser.add_argument("--target", default="host", help="the processor (default %(default)s)")
    parser.add_argument("--rpc", metavar="HOST:PORT", help="RPC tracker, or without --key the board's server")
    parser.add_argument("--key", help="the board's name at the tracker")
    parser.add_argument("--trials", type=int, default=200, help="measurements per distinct layer (default %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
