"""What benchmarks share: the order of interleaving, the medians, the record, and stages that say what failed."""

from __future__ import annotations

import io

import numpy as np
import pytest

from benchmarks.common.record import record
from onexn_plugins.progress import Progress, StageFailedError
from onexn_plugins.timing import CALLS_PER_TURN, Interval, Timings, interleave


def test_contenders_take_turns():
    calls, told = [], []
    timings = interleave({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3,
                         progress=lambda done, total: told.append((done, total)))
    assert "".join(calls) == ("a" * CALLS_PER_TURN + "b" * CALLS_PER_TURN) * 4  # one turn each is not timed
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert {name: samples.shape for name, samples in timings.samples.items()} == {
        "a": (3, CALLS_PER_TURN - 1), "b": (3, CALLS_PER_TURN - 1)}
    assert all((samples > 0).all() for samples in timings.samples.values())


def test_medians_and_speedups_are_taken_round_by_round():
    slowing = np.array([[2.0, 2.0, 9.0], [4.0, 4.0, 4.0], [8.0, 8.0, 0.1]])
    timings = Timings({"ours": slowing, "peer": 3 * slowing})
    assert timings.milliseconds("ours").value == 4.0
    assert timings.speedup("ours", "peer") == Interval(3.0, 3.0, 3.0)
    assert timings.speedup("peer", "ours").value == pytest.approx(1 / 3)


def test_the_record_names_machine_versions_and_commit():
    facts = record("python -m somewhere", packages=("torch", "no-such-package"))
    assert facts["command"] == "python -m somewhere"
    assert facts["versions"].keys() == {"python", "torch", "no-such-package"}
    assert facts["versions"]["no-such-package"] is None
    assert facts["machine"]["cores"] >= 1
    assert facts["machine"]["processor"]


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
