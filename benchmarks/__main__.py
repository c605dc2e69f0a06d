"""python -m benchmarks: every benchmark in turn, each of which also runs alone as python -m benchmarks.NAME."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("latency", "arm", "tune", "threads", "rearrangement.kept_l1", "rearrangement.networks")


def main() -> int:
    """Run them all; 1 where one failed."""
    failed = [name for name in BENCHMARKS
              if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
