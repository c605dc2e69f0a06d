"""python -m benchmarks: lists every benchmark with the question it answers; runs those named, or all, in turn.

    python -m benchmarks                 the list
    python -m benchmarks arm density     these, one after the other
    python -m benchmarks --all           every one, which takes hours

Each also runs alone, with options of its own, as python -m benchmarks.NAME.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.table import BENCHMARKS


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, 1 where a benchmark failed, 2 for one that there is not."""
    options = _options(arguments)
    names = [benchmark.name for benchmark in BENCHMARKS] if options.all else options.names
    if not names:
        width = max(len(benchmark.command) for benchmark in BENCHMARKS)
        print("\n".join(f"{benchmark.command:{width}}  {benchmark.question}" for benchmark in BENCHMARKS))
    failed = [name for name in names
              if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; none lists them")
    parser.add_argument("--all", action="store_true", help="run every benchmark")
    options = parser.parse_args(arguments)
    known = [benchmark.name for benchmark in BENCHMARKS]
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
