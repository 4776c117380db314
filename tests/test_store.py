import pickle
from pathlib import Path

import pytest

from hassod_ros.store import Groups, Store


def test_a_store_reads_values_from_disk_in_any_order_and_goes_with_its_process():
    store = Store((key, {"value": key * 2}) for key in (3, 1, 2))
    assert (list(store), len(store), store[2], store[3]) == ([3, 1, 2], 3, {"value": 4}, {"value": 6})
    assert store.get(9) is None
    copy = pickle.loads(pickle.dumps(store))  # as another process gets it
    assert dict(copy) == dict(store)
    path = Path(store._path)
    del copy
    assert path.exists()
    del store
    assert not path.exists()


def test_groups_gather_what_comes_in_any_order():
    entries = [{"image_id": image, "n": n} for n, image in enumerate([2, 2, 1, 2, 7, 1])]
    groups = Groups(iter(entries))
    assert list(groups) == [2, 1, 7]
    assert [[entry["n"] for entry in groups.of(image)] for image in (1, 2, 7, 8)] == [[2, 5], [0, 1, 3], [4], []]
    assert (groups.count, groups.masks) == (6, False)
    assert Groups([{"image_id": 1}, {"image_id": 1, "segmentation": [[0, 0, 1, 0, 1, 1]]}]).masks


def test_a_store_does_not_hold_its_values():
    made = []
    store = Store((key, made.append(key) or bytes(10)) for key in range(5))
    assert made == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        store[5]
