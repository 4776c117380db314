from dataclasses import replace

import cv2
import numpy as np
import pytest

from hassod_ros.inspection import inspector as module
from hassod_ros.inspection.inspector import Inspector
from hassod_ros.inspection.reference import learn
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.verdict import Kind, Result
from tests.inspection.parts import PIECES, SIZE, observe, part, taken


@pytest.fixture(scope="module")
def inspector(reference):
    return Inspector(reference, observe)


def box_of(name, at=None):
    x, y, radius, _ = PIECES[name]
    x, y = at or (x, y)
    return x - radius, y - radius, x + radius, y + radius


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height) / ((b[2] - b[0]) * (b[3] - b[1]))


def test_the_inventory_holds_the_four_pieces(reference):
    middles = {((c.box[0] + c.box[2]) // 2, (c.box[1] + c.box[3]) // 2) for c in reference.components}
    # The reference is one of the good pictures, which lie up to 6 px off.
    assert len(middles) == 4
    for x, y, *_ in PIECES.values():
        assert min(abs(x - a) + abs(y - b) for a, b in middles) < 25


@pytest.mark.parametrize("seed", range(20, 28))
def test_good_parts_are_ok(inspector, seed):
    verdict = inspector(taken(part(), seed))
    assert verdict.result == Result.OK, verdict.sentence
    assert verdict.score < 1
    assert verdict.findings == ()


@pytest.mark.parametrize("name", PIECES)
def test_a_missing_piece_is_named_at_its_place(inspector, name):
    picture = part(**{name: None})
    verdict = inspector(picture)
    assert verdict.result == Result.NG
    assert [finding.kind for finding in verdict.findings] == [Kind.MISSING]
    assert overlap(verdict.findings[0].box, box_of(name)) > 0.7
    assert verdict.findings[0].component > 0
    assert "is missing" in verdict.sentence


def test_something_extra(inspector):
    verdict = inspector(part(new=(160, 120, 20, (200, 50, 200))))
    assert [finding.kind for finding in verdict.findings] == [Kind.EXTRA]
    assert overlap(verdict.findings[0].box, (140, 100, 180, 140)) > 0.7


def test_a_piece_of_another_colour_has_changed(inspector):
    verdict = inspector(part(red={"colour": (40, 180, 190)}))
    assert [finding.kind for finding in verdict.findings] == [Kind.CHANGED]
    assert overlap(verdict.findings[0].box, box_of("red")) > 0.7


@pytest.mark.parametrize("at", [(80, 90), (150, 110)])
def test_a_piece_that_lies_elsewhere_has_moved(inspector, at):
    verdict = inspector(part(red={"at": at}))
    kinds = [finding.kind for finding in verdict.findings]
    assert kinds.count(Kind.MOVED) == 1
    assert not {Kind.MISSING, Kind.EXTRA} & set(kinds)
    finding = verdict.findings[kinds.index(Kind.MOVED)]
    assert finding.unit == "px"
    assert finding.measured == pytest.approx(np.hypot(at[0] - 80, at[1] - 70), abs=2.5)
    assert overlap(finding.box, box_of("red", at)) > 0.7


def test_a_scratch_is_a_defect(inspector):
    picture = part()
    cv2.line(picture, (140, 40), (180, 60), (20, 20, 20), 3)
    verdict = inspector(picture)
    assert [finding.kind for finding in verdict.findings] == [Kind.DEFECT]
    assert overlap(verdict.findings[0].box, (140, 40, 180, 60)) > 0.6


def test_the_box_lies_in_the_picture_and_not_in_the_reference(inspector):
    turned = cv2.warpAffine(
        part(green=None), cv2.getRotationMatrix2D((160, 120), 8, 1.0), SIZE[::-1], borderMode=cv2.BORDER_REFLECT_101
    )
    verdict = inspector(turned)
    x, y = cv2.getRotationMatrix2D((160, 120), 8, 1.0) @ (240, 70, 1)
    missing = [finding for finding in verdict.findings if finding.kind == Kind.MISSING]
    assert overlap(missing[0].box, (x - 18, y - 18, x + 18, y + 18)) > 0.7
    heat = verdict.heatmap(SIZE)
    assert heat[round(y), round(x)] >= 1


def test_a_part_turned_too_far_says_the_angle(reference):
    strict = Inspector(reference, observe, replace(reference.settings, angle=5.0))
    turned = cv2.warpAffine(
        part(), cv2.getRotationMatrix2D((160, 120), 12, 1.0), SIZE[::-1], borderMode=cv2.BORDER_REFLECT_101
    )
    finding = next(each for each in strict(turned).findings if each.unit == "deg")
    assert (finding.kind, finding.component, finding.limit) == (Kind.MOVED, 0, 5.0)
    assert finding.measured == pytest.approx(12, abs=4)  # the reference picture may itself be turned by 3


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        (np.zeros((*SIZE, 3), np.uint8), "blank"),
        (np.full((120, 160, 3), 90, np.uint8), "blank"),
        (cv2.resize(part(), (160, 120)), "160 x 120, the taught ones are 320 x 240"),
        (
            cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8), (0, 0), 4),
            "No taught part",
        ),
        (np.clip(part() * 0.2, 0, 255).astype(np.uint8), "The light is"),
        (np.roll(part(), 150, axis=1), "part"),
    ],
    ids=["black", "one colour", "another size", "another product", "too dark", "half outside"],
)
def test_what_cannot_be_judged_is_undecided_and_never_ok(inspector, picture, why):
    verdict = inspector(picture)
    if why == "part":  # half of the part is gone: never OK, whichever it is
        assert verdict.result != Result.OK
        return
    assert verdict.result == Result.UNDECIDED
    assert why in verdict.sentence
    assert verdict.findings == ()


def moved_out(picture: np.ndarray) -> np.ndarray:
    """The part further left, so that red and blue lie outside."""
    matrix = np.array([[1, 0, -85], [0, 1, 0]], np.float64)
    return cv2.warpAffine(picture, matrix, SIZE[::-1], borderMode=cv2.BORDER_REFLECT_101)


def test_what_lies_outside_the_picture_is_undecided_unless_something_else_is_wrong(inspector):
    verdict = inspector(moved_out(part()))
    assert (verdict.result, verdict.findings) == (Result.UNDECIDED, ())
    assert "lies outside the picture" in verdict.sentence
    verdict = inspector(moved_out(part(green=None)))
    assert verdict.result == Result.NG
    assert [finding.kind for finding in verdict.findings] == [Kind.MISSING]  # nothing of red and blue


def test_a_thing_that_the_detector_does_not_see_is_new_to_its_features(inspector):
    findings = inspector(part(NEW=(160, 120, 24, (60, 60, 60)))).findings  # grey: colourless to the detector
    assert [finding.kind for finding in findings] == [Kind.EXTRA]
    assert overlap(findings[0].box, (136, 96, 184, 144)) > 0.7


def test_light_that_begins_to_differ_is_a_warning(inspector):
    verdict = inspector(np.clip(part() * 0.68, 0, 255).astype(np.uint8))
    assert "light" in verdict.warning


def test_ignored_places_are_not_looked_at(teach, good):
    polygon = ((120.0, 20.0), (200.0, 20.0), (200.0, 90.0), (120.0, 90.0))
    picture = part()
    cv2.line(picture, (145, 45), (175, 60), (20, 20, 20), 3)
    for ignore, expected in (((), Result.NG), ((polygon,), Result.OK)):
        assert Inspector(teach(good, ignore=ignore), observe)(picture).result == expected


def test_only_the_region_of_interest_is_looked_at(teach, good):
    inside = Inspector(teach(good, roi=(30, 20, 130, 200)), observe)
    assert inside(part(green=None)).result == Result.OK
    found = inside(part(red=None)).findings
    assert [finding.kind for finding in found] == [Kind.MISSING]
    assert overlap(found[0].box, box_of("red")) > 0.7  # in pixels of the whole picture


def test_spots_smaller_than_the_least_area_do_not_count(reference):
    picture = part()
    cv2.rectangle(picture, (158, 60), (163, 65), (10, 10, 10), -1)
    assert Inspector(reference, observe)(picture).result == Result.NG
    assert Inspector(reference, observe, Settings(least_area=5000))(picture).result == Result.OK


def test_without_a_detector_pixels_and_colours_are_compared(good):
    from hassod_ros.inspection.reference import learn

    bare = learn(good, Settings(), name="plate")
    assert bare.components == ()
    inspector = Inspector(bare, None)
    assert inspector(taken(part(), 30)).result == Result.OK
    verdict = inspector(part(red=None))
    assert verdict.result == Result.NG
    assert overlap(verdict.findings[0].box, box_of("red")) > 0.7


def test_a_faint_stain_is_found_and_other_light_is_none_though_no_good_picture_shows_any():
    stain = cv2.circle(np.zeros(SIZE, np.float32), (160, 60), 22, 1, -1)
    stain = cv2.GaussianBlur(stain, (0, 0), 6)[..., None] * np.array([19, -6, -11], np.float32)
    stained = np.clip(part() + stain, 0, 255).astype(np.uint8)
    taught = learn([taken(part(), i, light=0.01) for i in range(5)], Settings(), name="part")
    inspector = Inspector(taught, None)
    found = inspector(taken(stained, 7, light=0.01)).findings[0].box
    assert overlap(found, (138, 38, 182, 82)) > 0.1
    assert inspector(taken(part(), 7, light=0.05)).result == Result.OK
    lit = replace(taught, light=taught.light + 5)  # where light changes, so little is none either
    assert Inspector(lit, None)(taken(stained, 7, light=0.01)).result == Result.OK


def test_limits_grow_with_the_light_beyond_what_was_taught():
    stain = cv2.circle(np.zeros(SIZE, np.float32), (160, 60), 22, 1, -1)
    stain = cv2.GaussianBlur(stain, (0, 0), 6)[..., None] * np.array([19, -6, -11], np.float32)
    inspector = Inspector(learn([taken(part(), i, light=0.01) for i in range(5)], Settings(), name="part"), None)

    def judged(strength, light):
        picture = np.clip((part() + strength * stain) * light, 0, 255).astype(np.uint8)
        return inspector(taken(picture, 7, light=0.01))

    assert [judged(1, light).result for light in (1, 0.9, 0.8)] == [Result.NG, Result.NG, Result.OK]
    assert [judged(1.3, light).result for light in (1, 0.9, 0.8)] == [Result.NG] * 3
    assert judged(1, 0.8).light.change == pytest.approx(11.3, abs=0.5)


def test_what_pixels_and_cells_both_find_off_need_not_be_beyond_either_limit():
    cells = np.zeros((10, 10), np.float32)
    cells[5, 5] = 0.8
    pixels = np.zeros((40, 40), np.float32)

    def agreed(pixels: np.ndarray, cells: np.ndarray) -> np.ndarray:
        return module._agreed(module._in_cells(pixels, (10, 10)), cells)

    np.testing.assert_array_equal(agreed(pixels, cells), cells)  # cells alone
    pixels[16:28, 16:28] = 0.8
    assert agreed(pixels, cells)[5, 5] > 1
    assert agreed(pixels, np.zeros_like(cells)).max() == 0  # pixels alone
    assert agreed(pixels * 0.3, cells)[5, 5] < 1
