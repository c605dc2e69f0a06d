"""From what was measured to a page: tables, plots, and what to know about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.latency.engines import DENSE, SPARSE, TITLES
from benchmarks.latency.measure import Measured
from benchmarks.latency.parts import COMPILE_GOAL, PIXELS, SPARSE_GOAL, Part
from onexn_plugins.report import Column, Page, Plot, Section, Table

OURS_COLUMNS = (
    Column("name", "Pruned"), Column("ours_ms", "This package", "milliseconds"),
    Column("best_ms", "Best dense engine", "milliseconds"), Column("best", "Which"),
    Column("speedup", "Faster", "times"), Column("goal", "Goal", "times"),
    *(Column(f"against_{peer}", f"Faster than {TITLES[peer]}, same mask", "times") for peer in SPARSE),
    Column("roofline", "Share of the roofline", "percent"), Column("sparse_layers", "Layers compiled sparse"),
    Column("compile_seconds", "Compiling", "seconds"),
)
ENGINE_COLUMNS = (
    Column("name", "Engine, pruned"), Column("ms", "Latency", "milliseconds"),
    Column("difference", "Differs from torch by", "scientific"),
    Column("cores_busy", "Core used in its turn", "percent"), Column("cores_idle", "and in others' turns", "percent"),
)
SWEEP_COLUMNS = (
    Column("name", "Pruned"), Column("ratio", "Blocks removed", "ratio"),
    Column("ours_ms", "This package", "milliseconds"), Column("against_dense", "Faster than its dense build", "times"),
    Column("sparse_layers", "Layers compiled sparse"), Column("compile_seconds", "Compiling", "seconds"),
)


def build(part: Part, measured: Measured, rounds: int, record: Mapping[str, Any]) -> Page:
    """The page of one part; `record` tells where its numbers were made."""
    sections = _table(part, measured) if part.peers else _sweep(part, measured)
    summary = (f"Batch 1, float32, {PIXELS}×{PIXELS}, one thread, random weights, masks by L1 norm; {rounds} rounds in "
               "which every contender takes its turn on the same core: one call to warm up, three timed. Medians with "
               "the 10th to 90th percentile; ratios are taken within rounds.")
    engines = {TITLES[name]: version for name, version in measured.versions.items()}
    return Page(part.title, summary, sections, record={**record, "engines": engines, "absent": measured.absent})


def _table(part: Part, measured: Measured) -> tuple[Section, ...]:
    absent = tuple(f"Not measured: {name}: {reason}" for name, reason in measured.absent.items())
    present = [name for name in (*DENSE, *SPARSE) if name in measured.versions]
    notes = ("The best dense engine is the one with the lowest median in this very run.",
             f"Goal against sparse engines on the same mask: {SPARSE_GOAL:g}×; for compiling: {COMPILE_GOAL:g} s.",
             "Roofline: multiply-accumulates that are left, at the peak that a loop of fused multiply-adds on "
             "registers reached in the same rounds.", *absent)
    engines = tuple(f"{TITLES[name]} {measured.versions[name]}" for name in present)
    return (
        Section(part.title, table=Table(OURS_COLUMNS, tuple(measured.ours)), notes=notes,
                plots=(Plot("bars", f"{part.title}: latency of one image", ("ours_ms", "best_ms"),
                            caption="Shorter is better; lines from the 10th to the 90th percentile."),)),
        Section(f"{part.title}: every engine", table=Table(ENGINE_COLUMNS, tuple(measured.engines)),
                plots=(Plot("bars", f"{part.title}: the other engines", ("ms",), caption="Shorter is better."),),
                notes=engines),
    )


def _sweep(part: Part, measured: Measured) -> tuple[Section, ...]:
    return (Section(part.title, table=Table(SWEEP_COLUMNS, tuple(measured.ours)),
                    plots=(Plot("points", f"{part.title}, by blocks removed", ("against_dense",), x="ratio",
                                caption="Never below 1 is the aim; lines from the 10th to the 90th percentile."),)),)
