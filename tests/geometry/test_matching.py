from hypothesis import given
from hypothesis import strategies as st

from hassod_ros.geometry.matching import StampRing

MILLI = 1_000_000


def filled(*stamps, **options):
    ring = StampRing(**options)
    for stamp in stamps:
        ring.put(stamp * MILLI, stamp)
    return ring


def test_the_exact_stamp_comes_first_then_the_nearest():
    ring = filled(100, 133, 166)
    assert ring.nearest(133 * MILLI, 0.02) == (133 * MILLI, 133)
    assert ring.nearest(140 * MILLI, 0.02) == (133 * MILLI, 133)
    assert ring.nearest(155 * MILLI, 0.02) == (166 * MILLI, 166)
    assert ring.nearest(200 * MILLI, 0.02) is None
    assert StampRing().nearest(0, 1.0) is None


def test_it_knows_when_nothing_nearer_can_come():
    ring = filled(100)
    assert not ring.passed(101 * MILLI)
    assert ring.passed(100 * MILLI)
    assert not StampRing().passed(0)


def test_old_items_go_and_time_can_be_set_back():
    ring = filled(0, 500, 1000, 1600, memory=1.0)
    assert len(ring) == 2
    assert len(filled(*range(50), limit=10)) == 10
    ring.put(0, "again")
    assert len(ring) == 1
    assert ring.nearest(0, 0.001) == (0, "again")


@given(st.lists(st.integers(0, 900), min_size=1, max_size=30), st.integers(0, 900), st.integers(0, 100))
def test_nearest_is_the_nearest(stamps, asked, skew):
    found = filled(*stamps).nearest(asked * MILLI, skew / 1000)
    best = min(abs(stamp - asked) for stamp in stamps)
    assert (found is None) == (best > skew)
    assert found is None or abs(found[1] - asked) == best
