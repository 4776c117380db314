import pytest

from hassod_ros.nodes.camera import Camera, FrameAge


def test_ages_where_the_clocks_agree():
    age = FrameAge()
    assert [age.of(now, stamp) for now, stamp in ((10.0, 9.9), (11.0, 10.5), (12.0, 9.0))] == pytest.approx(
        [0.1, 0.5, 3.0]
    )
    assert age.offset == 0


@pytest.mark.parametrize("offset", [-1000.0, 30.0])
def test_ages_count_from_the_freshest_frame_where_the_clocks_differ(offset):
    age = FrameAge()
    found = [age.of(100.0 + i, 100.0 + i - offset - late) for i, late in enumerate((0.1, 0.1, 5.1))]
    assert found == pytest.approx([0.0, 0.0, 5.0])
    assert age.offset == pytest.approx(offset + 0.1)


def test_one_frame_from_another_time_says_nothing_about_the_clocks():
    age = FrameAge()
    age.of(1000.0, 999.9)
    assert age.of(5.0, 1000.0) == -995.0  # on its way when the simulation was set back
    assert age.of(5.1, 5.0) == pytest.approx(0.1)
    assert age.offset == 0


def test_time_that_has_not_begun_makes_nothing_old():
    age = FrameAge()
    assert age.of(0.0, 1e9) == 0
    assert age.offset == 0
    assert age.of(50.0, 49.9) == pytest.approx(0.1)


def test_the_rate_limit_keeps_its_rate_when_frames_jitter():
    camera = Camera("")
    times = [i / 30 + (0.01 if i % 2 else -0.01) for i in range(300)]
    taken = [time for time in times if not camera.limit_rate(time, 10.0)]
    assert len(taken) == pytest.approx(100, abs=2)
    assert not any(camera.limit_rate(time, 0.0) for time in times)
