"""The database as a file: what goes in comes out, and what is damaged or foreign is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.kernels.problem import Choice, Tile
from onexn_plugins.tvm_backend.processors import find_target
from onexn_plugins.tvm_backend.tuning.applied import Tuning
from onexn_plugins.tvm_backend.tuning.database import Database, Entry, Machine
from onexn_plugins.tvm_backend.tuning.decision import Trial

numbers = st.floats(0.0, 1e6, allow_nan=False)
choices = st.builds(Choice, st.booleans(), st.builds(Tile, st.integers(1, 32), st.integers(1, 8)))
machines = st.builds(Machine, st.text(max_size=5), st.sampled_from(["znver4", "cortex-a72"]), st.sampled_from([4, 16]),
                     st.integers(1, 4), st.booleans())
trials = st.builds(Trial, choices, st.booleans(), st.integers(0, 100), numbers, numbers, numbers, numbers,
                   st.none() | st.text(max_size=9))
entries = st.builds(Entry, machines, st.text(max_size=30), choices, st.lists(trials, max_size=4).map(tuple))


def an_entry(machine: Machine | None = None) -> Entry:
    won = Trial(Choice(True, Tile(4, 5)), True, 80, 100.0, 80.0, 0.8, 0.9)
    return Entry(machine or Machine.of(find_target("cortex-a72"), 1), "conv", Choice(True, Tile(4, 4)), (won,))


@pytest.fixture
def written(tmp_path):
    database = Database(tmp_path / "tuning.json")
    database.put(an_entry())
    database.save()
    return database.path


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(entries, max_size=5))
def test_what_is_written_is_read(tmp_path, several):
    database = Database(tmp_path / "tuning.json")
    for entry in several:
        database.put(entry)
    database.save()
    assert Database.read(database.path).entries == database.entries


def test_the_choice_is_the_winners(written):
    assert str(Database.read(written).entries[0].choice) == "sparse 4x5"
    assert [path.name for path in written.parent.iterdir()] == ["tuning.json"]


def _damage(change):
    def damaged(values):
        change(values["entries"][0])
    return damaged


BAD = {
    "another format": (lambda values: values.update(format="json"), "is no tuning database"),
    "another version": (lambda values: values.update(format_version=2), "has format version 2"),
    "kernels of another version": (lambda values: values["versions"].update({"onexn-plugins": "9"}), "was tuned with"),
    "no entries": (lambda values: values.pop("entries"), "is damaged"),
    "entries of no kind": (lambda values: values.update(entries={"a": 1}), "is damaged"),
    "no target": (_damage(lambda entry: entry.pop("target")), "is damaged"),
    "a target without a processor": (_damage(lambda entry: entry["target"].pop("cpu")), "is damaged"),
    "lanes of no kind": (_damage(lambda entry: entry["target"].update(lanes="16")), "is damaged"),
    "a problem of no kind": (_damage(lambda entry: entry.update(problem=3)), "is damaged"),
    "a choice that was not measured": (_damage(lambda entry: entry["choice"].update(vectors=3)), "is damaged"),
    "blocks of nothing": (_damage(lambda entry: entry["default"].update(block_size=0)), "is damaged"),
    "a huge tile": (_damage(lambda entry: entry["trials"][0]["choice"].update(vectors=10**9)), "is damaged"),
    "a truth for a number": (_damage(lambda entry: entry["default"].update(vectors=True)), "is damaged"),
    "no number": (_damage(lambda entry: entry["trials"][0].update(ratio=float("nan"))), "is damaged"),
    "an unknown field": (_damage(lambda entry: entry["trials"][0].update(colour="red")), "is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_databases_are_refused(written, name):
    change, reason = BAD[name]
    values = json.loads(written.read_text())
    change(values)
    written.write_text(json.dumps(values))
    with pytest.raises(OneXNError, match=reason) as caught:
        Database.read(written)
    assert caught.value.layer == str(written)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "[" * 100_000, '{"format": "onexn-plugins tuning"}'])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "tuning.json"
    path.write_text(text)
    with pytest.raises(OneXNError, match=r"tuning\.json"):
        Database.open(path)
    assert path.read_text() == text


def test_a_truncated_file_is_refused(written):
    whole = written.read_bytes()
    for length in range(0, len(whole) - 1, 37):
        written.write_bytes(whole[:length])
        with pytest.raises(OneXNError, match="is no tuning database"):
            Database.read(written)


def test_no_file(tmp_path):
    with pytest.raises(OneXNError, match="cannot be read"):
        Database.read(tmp_path / "none.json")
    assert Database.open(tmp_path / "none.json").entries == ()
    with pytest.raises(OneXNError, match="its folder does not exist"):
        Database.open(tmp_path / "nowhere" / "none.json")
    with pytest.raises(OneXNError, match="is a folder"):
        Database.open(tmp_path)


def test_a_database_of_another_target_is_refused(written):
    target = find_target("cortex-a53")
    with pytest.raises(OneXNError, match=r"tuned for cortex-a72.*not for cortex-a53.*tune --target cortex-a53"):
        Tuning.read(written, target, 1)
    with pytest.raises(OneXNError, match=r"not for cortex-a72 \(cortex-a72, 4 lanes, 2 thread"):
        Tuning.read(written, find_target("cortex-a72"), 2)
    assert Tuning.read(written, find_target("cortex-a72"), 1)


def test_an_emulators_times_choose_nothing(tmp_path):
    database = Database(tmp_path / "tuning.json")
    target = find_target("cortex-a72")
    database.put(an_entry(Machine.of(target, 1, emulated=True)))
    database.save()
    with pytest.raises(OneXNError, match=r"emulated.*, not for cortex-a72"):
        Tuning.read(database.path, target, 1)
