"""python -m benchmarks.rearrangement.networks: which networks can be rearranged, how long that takes, and how much
memory; each in a process of its own, on one thread. Networks measured earlier stay in the report.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common.record import command_line, record
from onexn_plugins.report import Column, Page, Section, Table, load, save, to_text, write_html

TORCHVISION = (
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "resnet18", "resnet50", "resnext50_32x4d",
    "densenet121", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "googlenet", "inception_v3", "vgg16_bn",
    "squeezenet1_1", "mnasnet1_0", "efficientnet_b0", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny", "vit_b_16",
    "swin_t",
)
TIMM = (
    "timm/efficientnet_lite0", "timm/ghostnet_100", "timm/mobilenetv4_conv_small", "timm/res2net50_26w_4s",
    "timm/repvgg_a0", "timm/hrnet_w18_small", "timm/mobileone_s0", "timm/edgenext_xx_small", "timm/dla34",
    "timm/cspresnet50",
)
COLUMNS = (
    Column("name", "Network"), Column("layers", "Layers to prune", "count"), Column("spaces", "Spaces moved", "count"),
    Column("moved", "Layers moved", "count"), Column("refused", "Layers refused", "count"), Column("why", "Why"),
    Column("proof_error", "Proof error", "scientific"), Column("none", "Kept before", "percent"),
    Column("kept", "Kept after", "percent"), Column("trace_seconds", "Tracing", "seconds"),
    Column("search_seconds", "Search", "seconds"), Column("proof_seconds", "Proof", "seconds"),
    Column("seconds", "In all", "seconds"), Column("peak_bytes", "Peak memory", "megabytes"),
)
SUMMARY = ("rearrange() in a process of its own, CPU seconds of one thread; weights are random, which says "
           "nothing about what is kept of trained ones. Peak memory counts the whole process with torch, about "
           "{base:.0f} MB before a network is loaded.")


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    report = options.out / "networks.json"
    facts = record(command_line("benchmarks.rearrangement.networks"), ("torch", "torchvision", "timm", "numpy"))
    heading = f"1×{options.block_size}, {options.ratio:.0%} pruned, {options.method}"
    failed, base = 0, _base_megabytes()
    for network in options.networks:
        row = _row(network, options)
        failed += "why" in row and "spaces" not in row
        sections = _merged(report, heading, row | {"commit": facts["commit"]})
        page = Page("Networks that can be rearranged", SUMMARY.format(base=base), sections, record=facts)
        options.out.mkdir(parents=True, exist_ok=True)
        save(page, report)
        print(to_text(Table(COLUMNS, (row,))).splitlines()[-1], flush=True)
    print(report, write_html(load(report), options.html or options.out / "networks.html"))
    return int(bool(failed))


def _row(network: str, options: argparse.Namespace) -> dict[str, Any]:
    """One network's cells; only its name and the error where it failed."""
    arguments = [network, str(options.block_size), str(options.ratio), options.method]
    done = subprocess.run([sys.executable, "-m", f"{__package__}.one_network", *arguments], capture_output=True,
                          text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        return {"name": network, "why": done.stderr.strip().splitlines()[-1]}
    row = json.loads(done.stdout.splitlines()[-1])
    row["why"] = _why(row["reasons"]) or None
    return row


def _why(reasons: dict[str, str]) -> str:
    """Reasons with the layers they hold for: all of few, the first of many."""
    told = []
    for reason, count in Counter(reasons.values()).most_common():
        names = [name for name, each in reasons.items() if each == reason]
        told.append(f"{', '.join(names[:2])}{f' and {count - 2} more' if count > 2 else ''}: {reason}")
    return "; ".join(told)


def _merged(report: Path, heading: str, row: dict[str, Any]) -> tuple[Section, ...]:
    """The report's sections, with this row in the one of this heading: in its place or at the end."""
    tables = {section.heading: [dict(each) for each in section.table.rows] for section in load(report).sections
              if section.table} if report.exists() else {}
    rows = tables.setdefault(heading, [])
    places = [index for index, each in enumerate(rows) if each["name"] == row["name"]]
    if places:
        rows[places[0]] = row
    else:
        rows.append(row)
    return tuple(Section(each, table=Table(COLUMNS, tuple(rows))) for each, rows in tables.items())


def _base_megabytes() -> float:
    """Peak memory of a process that imports what every row imports."""
    code = ("import resource, benchmarks.rearrangement.one_network as _; "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024 / 1e6


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rearrangement.networks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[*TORCHVISION, *TIMM], help="names as for `onexn prune`")
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--method", choices=("swap", "sort"), default="swap")
    parser.add_argument("--out", type=Path, default=Path("out/rearrangement"), help="folder (default: %(default)s)")
    parser.add_argument("--html", type=Path, help="page (default: networks.html in that folder)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
