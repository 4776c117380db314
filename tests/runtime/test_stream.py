import threading
import time

import pytest

from hassod_ros.runtime.stream import CameraClock, Mailbox, RateLimit, Worker


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


def test_overdue_counts_while_something_waits_for_the_worker_also_when_it_is_replaced():
    box = Mailbox()
    assert box.overdue() == 0
    box.put("front", 1)
    time.sleep(0.02)
    box.put("front", 2)
    assert box.overdue() >= 0.02
    box.take(1)
    begun = box.overdue()
    time.sleep(0.02)
    assert box.overdue() >= begun + 0.02  # it is being worked on
    waiting = threading.Thread(target=box.take, args=(1,))  # done, and waits for more
    waiting.start()
    until(lambda: box.overdue() == 0)
    box.close()
    waiting.join()


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_worker_survives_what_it_fails_on():
    handled, failures = [], []

    def handle(items):
        handled.append(items)
        if items == [("front", "bad")]:
            raise RuntimeError("bad")

    worker = Worker("work", handle, failures.append)
    for item in ("bad", "good"):
        worker.put("front", item)
        until(lambda item=item: handled and handled[-1] == [("front", item)])
    assert [str(error) for error in failures] == ["bad"]
    until(lambda: worker.overdue() == 0)
    worker.close()
    worker.put("front", "late")
    assert len(handled) == 2


def test_a_worker_that_hangs_or_died_is_overdue():
    def handle(items):
        raise SystemExit  # ends the thread

    worker = Worker("work", handle, lambda error: None)
    worker.put("front", 1)
    until(lambda: not worker.alive)
    worker.put("front", 2)
    until(lambda: worker.overdue() > 0.01)


def test_a_worker_that_hangs_is_left_behind():
    begun, go_on = threading.Event(), threading.Event()
    worker = Worker("work", lambda items: begun.set() or go_on.wait(60), lambda error: None)
    worker.put("front", 1)
    assert begun.wait(60)
    assert not worker.close(0.01)
    go_on.set()
    until(lambda: not worker.alive)
    assert worker.close(0.01)


def test_others_can_wait_until_a_worker_rests_but_no_longer_than_they_say():
    begun, go_on = threading.Event(), threading.Event()
    worker = Worker("work", lambda items: begun.set() or go_on.wait(60), lambda error: None)
    assert worker.rest(60)
    worker.put("front", 1)
    assert begun.wait(60)
    assert not worker.rest(0.01)
    worker.put("front", 2)
    rested = []
    waiting = threading.Thread(target=lambda: rested.append(worker.rest(60)))
    waiting.start()
    assert not rested
    go_on.set()
    waiting.join()
    assert rested == [True]
    assert worker.overdue() == 0  # the second frame is done as well
    worker.close()
    assert worker.rest(60)


def test_ages_where_the_clocks_agree():
    clock = CameraClock()
    found = [clock.judge(stamp, now, 0.0) for now, stamp in ((10.0, 9.9), (11.0, 10.5), (12.0, 9.0))]
    assert [moment.age for moment in found] == pytest.approx([0.1, 0.5, 3.0])
    assert [moment.time for moment in found] == [9.9, 10.5, 9.0]
    assert clock.offset == 0


@pytest.mark.parametrize("offset", [-1000.0, 30.0])
@pytest.mark.parametrize("correct", [False, True])
def test_ages_count_from_the_freshest_frame_only_where_that_is_asked_for(offset, correct):
    clock, lates = CameraClock(), (0.1, 0.1, 5.1)
    found = [
        clock.judge(100.0 + i - offset - late, 100.0 + i, 0.0, correct=correct).age for i, late in enumerate(lates)
    ]
    assert found == pytest.approx([0.0, 0.0, 5.0] if correct else [offset + late for late in lates])
    assert clock.offset == pytest.approx(offset + 0.1)


def test_one_frame_from_another_time_says_nothing_about_the_clocks():
    clock = CameraClock()
    clock.judge(999.9, 1000.0, 0.0)
    assert clock.judge(1000.0, 5.0, 0.0, correct=True).age == -995.0  # on its way when the simulation was set back
    assert clock.judge(5.0, 5.1, 0.0, correct=True).age == pytest.approx(0.1)
    assert clock.offset == 0


def test_time_that_has_not_begun_makes_nothing_old():
    clock = CameraClock()
    assert clock.judge(1e9, 0.0, 0.0).age == 0
    assert clock.offset == 0
    assert clock.judge(49.9, 50.0, 0.0).age == pytest.approx(0.1)


@pytest.mark.parametrize("stamp", [0.0, 1234.5])
def test_a_camera_that_does_not_stamp_is_taken_by_its_arrival(stamp):
    clock = CameraClock()
    for frame in range(10):
        moment = clock.judge(stamp, 1.8e9 + frame, 50.0 + frame)
    assert (moment.time, moment.age, moment.stamped) == (59.0, 0.0, False)
    assert (clock.stamps, clock.offset) == (False, 0.0)
    for frame in range(10):
        moment = clock.judge(1.8e9 + frame - 0.1, 1.8e9 + frame, 60.0 + frame)
    assert (moment.time, moment.stamped, clock.stamps) == (1.8e9 + 8.9, True, True)


def test_a_camera_that_stamps_whole_seconds_does_not_stamp():
    clock = CameraClock()
    found = [clock.judge(float(frame // 30 + 1), 1 + frame / 30, frame / 30) for frame in range(120)]
    assert not any(moment.stamped for moment in found[5:])


def test_an_image_sent_twice_is_no_camera_that_does_not_stamp():
    clock = CameraClock()
    found = [clock.judge(100 + frame // 2, 100.1 + frame // 2, 0.0) for frame in range(20)]
    assert all(moment.stamped for moment in found)


def test_the_rate_limit_keeps_its_rate_when_frames_jitter():
    limit = RateLimit()
    times = [i / 30 + (0.01 if i % 2 else -0.01) for i in range(300)]
    taken = [time for time in times if not limit.exceeded(time, 10.0)]
    assert len(taken) == pytest.approx(100, abs=2)
    assert not any(limit.exceeded(time, 0.0) for time in times)


def test_after_a_pause_the_next_place_is_half_an_interval_away_at_least():
    limit = RateLimit()
    assert [limit.exceeded(now, 1.0) for now in (100.0, 100.1, 100.4, 100.6, 101.0, 101.5)] == [
        *(False, True, True),
        *(False, True, False),
    ]
