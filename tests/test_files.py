import errno

import pytest

from onexn_plugins.errors import OneXNError
from onexn_plugins.files import check_writable, written_aside


def test_a_finished_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with written_aside(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError("stopped"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises((RuntimeError, OneXNError), match=r"stopped|a\.txt: cannot be written: No space left"), \
            written_aside(path) as unfinished:
        unfinished.write_text("half")
        raise failure
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_places_are_refused_first(tmp_path):
    with pytest.raises(OneXNError, match="folder does not exist"):
        check_writable(tmp_path / "none" / "a.txt")
    with pytest.raises(OneXNError, match="is a folder"):
        check_writable(tmp_path)
