import threading

from hassod_ros.nodes.mailbox import Mailbox


def test_newest_wins_and_the_older_one_is_handed_back():
    box = Mailbox()
    assert box.put("front", 1) is None
    assert box.put("front", 2) == 1
    assert box.take(1) == [("front", 2)]
    assert box.put("front", 3) is None


def test_a_fast_camera_does_not_push_a_slow_one_aside():
    box = Mailbox()
    box.put("fast", 1)
    box.put("slow", 1)
    box.put("fast", 2)
    assert box.take(1) == [("fast", 2)]
    box.put("fast", 3)
    assert box.take(1) == [("slow", 1)]
    assert box.take(5) == [("fast", 3)]


def test_take_waits_for_an_item_and_close_ends_the_wait():
    box, taken = Mailbox(), []
    worker = threading.Thread(target=lambda: taken.extend([box.take(2), box.take(2)]))
    worker.start()
    box.put("front", 1)
    while not taken and worker.is_alive():
        box.close()
        worker.join(timeout=5)
    assert not worker.is_alive()
    assert taken[-1] == []
