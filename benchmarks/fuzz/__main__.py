"""python -m benchmarks.fuzz: damaged ONNX files and artefacts, and random valid networks; writes what the package makes
of them as JSON.

Numbers of the damage make a run repeatable: whatever is found is looked at again with --first NUMBER --files 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common.record import command_line, record
from benchmarks.common.workers import judged

RESULTS = Path(__file__).with_name("results") / "fuzz.json"
FINE = ("refused", "read", "right", "no reference", "uncompared")


def main(arguments: list[str] | None = None) -> int:
    """0 where every file was refused or computed right."""
    options = _options(arguments)
    facts = record(command_line("benchmarks.fuzz"))
    models = ["benchmarks.fuzz.worker", str(options.compile_every)]
    kinds = {"onnx": (models, options.files), "artefacts": (["benchmarks.fuzz.artefacts"], options.artefacts),
             "networks": (["benchmarks.fuzz.networks.worker"], options.networks)}
    results = {kind: _summary(judged(words, options.first, options.first + count))
               for kind, (words, count) in kinds.items() if count}
    print(json.dumps(results, indent=1, ensure_ascii=False))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**facts, **results}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(result["faults"] for result in results.values()))


def _summary(outcomes: dict[int, str]) -> dict[str, Any]:
    """Counts, and every fault by its number. A refusal may say why."""
    kinds = {number: outcome.split(":")[0] for number, outcome in sorted(outcomes.items())}
    reasons = Counter(outcomes[number] for number, kind in kinds.items() if kind == "refused" != outcomes[number])
    return {"files": len(outcomes), "outcomes": dict(Counter(kind for kind in kinds.values() if kind in FINE)),
            **({"refusals": dict(reasons.most_common())} if reasons else {}),
            "faults": {number: outcomes[number] for number, kind in kinds.items() if kind not in FINE}}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=4000, help="damaged ONNX files (default %(default)s)")
    parser.add_argument("--artefacts", type=int, default=1000, help="damaged artefacts (default %(default)s)")
    parser.add_argument("--networks", type=int, default=20000, help="random networks (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--compile-every", type=int, default=1, metavar="K",
                        help="compile and run every K-th file that is not refused (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
