"""Stages say what failed, and a terminal's line is cleared."""

from __future__ import annotations

import io

import pytest

from onexn_plugins.progress import Progress, StageFailedError


def test_stages_are_numbered_and_a_failing_one_is_named():
    stream, ran = io.StringIO(), []

    def fail(progress):
        progress.say("half way")
        raise ValueError("the reason")

    stages = [("First", lambda progress: ran.append("first")), ("Second", fail),
              ("Third", lambda progress: ran.append("third"))]
    progress = Progress(stream)
    with pytest.raises(StageFailedError, match=r"stage 2 of 3 failed \(Second\): the reason") as caught:
        progress.run(stages)
    assert isinstance(caught.value.__cause__, ValueError)
    assert ran == ["first"]
    assert list(progress.seconds) == ["First"]
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[1/3] First"
    assert lines[2:] == ["[2/3] Second", "      half way"]


def test_a_terminal_rewrites_its_line_and_clears_it():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    Progress(stream).run([("Only", lambda progress: progress.rounds(1, 4))])
    assert "1 of 4 rounds" in stream.getvalue()
    assert stream.getvalue().split("\r")[-1].strip().startswith("done in")
