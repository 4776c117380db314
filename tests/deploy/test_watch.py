from __future__ import annotations

import pytest

from hassod_ros.deploy.watch import Report, Watch, merge

BEFORE = Report("old", "", rate=30.0, latency=40.0)
GOOD = Report("new", "", rate=29.0, latency=60.0)


def verdicts(reports: list[Report], before: Report = BEFORE) -> list[str]:
    watch = Watch("new", before)
    return [watch.add(report) for report in reports]


def test_a_node_that_goes_on_as_before_is_well() -> None:
    assert verdicts([GOOD] * 10) == [""] * 10


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (GOOD._replace(error="segmentation failed"), "segmentation failed"),
        (GOOD._replace(rate=10.0), r"10.0 images per second instead of 30.0"),
        (GOOD._replace(latency=150.0), r"150 ms instead of 40"),
        (GOOD._replace(sha256="other"), "runs another model"),
    ],
)
def test_two_bad_reports_in_a_row_are_a_failure(report: Report, sentence: str) -> None:
    assert verdicts([GOOD, GOOD, report, GOOD, report, GOOD]) == [""] * 6
    found = verdicts([GOOD, GOOD, report, report])
    assert found[:3] == [""] * 3
    assert sentence in found[3]


def test_the_first_reports_are_not_judged_by_their_figures() -> None:
    slow = GOOD._replace(latency=5000.0, rate=0.0)
    assert verdicts([slow, slow, GOOD, GOOD]) == [""] * 4


def test_what_was_so_before_is_not_the_new_models_fault() -> None:
    idle = Report("old", "no new image for 20 s", rate=0.0, latency=0.0)
    same = Report("new", "no new image for 21 s", rate=0.0, latency=900.0)
    assert verdicts([same] * 6, idle) == [""] * 6
    assert verdicts([GOOD._replace(latency=45.0)] * 6, BEFORE._replace(latency=5.0)) == [""] * 6


def test_cameras_of_a_node_are_one_report() -> None:
    cameras = [
        (False, "working", {"model_sha256": "a", "rate_out_hz": "10.5", "total.p95_ms": "20"}),
        (True, "no new image", {"model_sha256": "a", "rate_out_hz": "4.5", "total.p95_ms": ""}),
    ]
    assert merge(cameras) == Report("a", "no new image", 15.0, 20.0)
    assert merge([(False, "", {"model_sha256": "", "rate_out_hz": "?"})]) == Report("", "", 0.0, 0.0)
