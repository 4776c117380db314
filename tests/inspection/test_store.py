import pytest

from hassod_ros.errors import InputError
from hassod_ros.inspection.store import Store


def test_every_version_is_kept(reference, tmp_path):
    store = Store(tmp_path)
    first, second = store.add(reference), store.add(reference)
    assert (first.version, second.version) == (1, 2)
    assert store.versions("plate") == [1, 2]
    assert store.load("plate").version == 2
    assert store.load("plate", 1).sha256 == first.sha256


def test_what_is_in_use_is_remembered(reference, tmp_path):
    store = Store(tmp_path)
    assert store.current() is None
    first = store.add(reference)
    store.add(reference)
    store.use(first)
    assert Store(tmp_path).current() == ("plate", 1)


def test_cells_that_share_a_folder_begin_with_their_own(reference, tmp_path):
    left, right = Store(tmp_path, "left.inspection_node"), Store(tmp_path, "right.inspection_node")
    left.use(left.add(reference))
    assert right.current() is None
    right.use(right.add(reference))
    assert (left.current(), right.current()) == (("plate", 1), ("plate", 2))
    assert Store(tmp_path).current() is None


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [("other", 0, "there is no reference other"), ("plate", 7, r"no version 7 \(there is: 1\)")],
)
def test_what_is_not_there_is_named(reference, tmp_path, name, version, words):
    store = Store(tmp_path)
    store.add(reference)
    with pytest.raises(InputError, match=words):
        store.load(name, version)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "x" * 65, "ä"])
def test_names_that_could_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="cannot be a reference's name"):
        Store(tmp_path).versions(name)


def test_a_damaged_note_is_named(tmp_path):
    (tmp_path / "current.json").write_text("{")
    with pytest.raises(InputError, match=r"current\.json is damaged"):
        Store(tmp_path).current()
