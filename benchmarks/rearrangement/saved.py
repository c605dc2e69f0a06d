"""Sections of a report written earlier, so that networks can be measured one by one."""

from __future__ import annotations

from pathlib import Path

from onexn_plugins.report import Section, load


def merged(report: Path, section: Section) -> list[Section]:
    """The report's sections on single networks with `section` in the place of the one of its heading, or at the end.

    Sections with plots are drawn from these and left out.
    """
    before = [each for each in load(report).sections if not each.plots] if report.exists() else []
    after = [section if each.heading == section.heading else each for each in before]
    return after if section in after else [*after, section]
