"""The verdict for a line worker two metres away: a colour, a word, a circle, a sentence for each finding."""

from __future__ import annotations

import cv2
import numpy as np

from hassod_ros.inspection.reference import Reference
from hassod_ros.inspection.verdict import Finding, Result, Verdict

_COLOURS = {  # RGB; the word says the same, for who cannot tell red from green
    Result.OK: (0, 130, 60),
    Result.NG: (200, 20, 30),
    Result.UNDECIDED: (225, 150, 0),
}
_WORDS = {Result.OK: "OK", Result.NG: "NG", Result.UNDECIDED: "UNDECIDED"}
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LEAST_WIDTH = 960  # pixels of the drawing
_MOST = 5  # findings with a sentence; the others have a circle
_LINE = 1.6  # letters from one line to the next
_WHITE = (255, 255, 255)
_TAUGHT = (20, 80, 170)  # of what was taught
_Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels
_Circle = tuple[tuple[int, int], tuple[int, int]]  # middle and half axes in pixels


def draw_verdict(picture: np.ndarray, verdict: Verdict) -> np.ndarray:
    """The (H, W, 3) uint8 RGB picture with its verdict, enlarged to be read from afar.

    Returns:
        uint8 RGB of another size: a bar with the word above, the picture with circles, the sentences below.

    """
    scale = max(1.0, _LEAST_WIDTH / picture.shape[1])
    sheet = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    colour = _COLOURS[verdict.result]
    circles = [_circle(sheet, finding, scale, colour) for finding in verdict.findings]
    taken: list[_Box] = []
    for number, circle in enumerate(circles[:_MOST], start=1):  # after all circles, of which none shall cross a number
        if circle is not None:
            taken.append(_number_beside(sheet, number, circle, taken, colour))
    width = sheet.shape[1]
    frame = max(6, width // 80)
    sheet = cv2.copyMakeBorder(sheet, 0, frame, frame, frame, cv2.BORDER_CONSTANT, value=colour)
    return np.vstack([_bar(verdict, sheet.shape[1], colour), sheet, *_sentences(verdict, sheet.shape[1])])


def draw_taught(reference: Reference) -> np.ndarray:
    """The part as it was taught, its components outlined and numbered as findings name them.

    Returns:
        uint8 RGB, enlarged likewise.

    """
    scale = max(1.0, _LEAST_WIDTH / reference.ideal.shape[1])
    sheet = cv2.resize(reference.ideal, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    thick = max(2, sheet.shape[1] // 400)
    wides = []
    for component in reference.components:
        full = component.full((reference.ideal.shape[0], reference.ideal.shape[1])).view(np.uint8)
        wide = cv2.resize(full, (sheet.shape[1], sheet.shape[0]), interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(wide, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(sheet, outlines, -1, _WHITE, thick + 2, cv2.LINE_AA)
        cv2.drawContours(sheet, outlines, -1, _TAUGHT, thick, cv2.LINE_AA)
        wides.append(wide)
    size = 0.6 * sheet.shape[1] / 900
    taken = np.zeros(sheet.shape[:2], np.uint8)
    for number in sorted(range(len(wides)), key=lambda index: int(wides[index].sum())):  # small ones have little room
        # Where it is widest beside the numbers of others, so that the number of one that holds others stays readable.
        for free in (wides[number] & ~taken & 1, wides[number]):
            inner = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_5)
            if inner.any():
                break
        x, y = cv2.minMaxLoc(inner)[3]
        x0, y0, x1, y1 = _number(sheet, number + 1, (x, y), size, _TAUGHT)
        taken[y0:y1, x0:x1] = 1
    return sheet


def draw_heat(picture: np.ndarray, verdict: Verdict) -> np.ndarray:
    """The (H, W, 3) uint8 RGB picture in grey, and in colour what was measured: from half the limit on, red beyond."""
    heat = np.clip(verdict.heatmap((picture.shape[0], picture.shape[1])), 0, 1.5)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    colours = cv2.applyColorMap(cv2.convertScaleAbs(heat, alpha=255 / 1.5), cv2.COLORMAP_JET)
    share = np.clip((heat - 0.5) * 2, 0, 0.7)[..., None]
    mixed: np.ndarray = (grey * (1 - share) + cv2.cvtColor(colours, cv2.COLOR_BGR2RGB) * share).astype(np.uint8)
    return mixed


def _circle(sheet: np.ndarray, finding: Finding, scale: float, colour: tuple[int, int, int]) -> _Circle | None:
    """Draw a finding's ellipse; returns its middle and half axes, None where it would be around the whole part."""
    x0, y0, x1, y1 = (round(value * scale) for value in finding.box)
    middle = ((x0 + x1) // 2, (y0 + y1) // 2)
    thick = max(3, sheet.shape[1] // 240)
    if (x1 - x0) * (y1 - y0) > 0.8 * sheet.shape[0] * sheet.shape[1]:  # the whole part: the frame says it
        return None
    axes = (max(12, round(0.71 * (x1 - x0)) + thick), max(12, round(0.71 * (y1 - y0)) + thick))
    cv2.ellipse(sheet, middle, axes, 0, 0, 360, _WHITE, thick + 4, cv2.LINE_AA)
    cv2.ellipse(sheet, middle, axes, 0, 0, 360, colour, thick, cv2.LINE_AA)
    return middle, axes


def _number_beside(
    sheet: np.ndarray, number: int, circle: _Circle, taken: list[_Box], colour: tuple[int, int, int]
) -> _Box:
    """Write a number onto its circle, upper right or as near to that as others leave room; returns its box."""
    (x, y), (wide, high) = circle
    size = sheet.shape[1] / 900
    turns = np.deg2rad([-45 + sign * step for step in range(0, 181, 15) for sign in (1, -1)])
    places = [(round(x + wide * np.cos(turn)), round(y + high * np.sin(turn))) for turn in turns]
    free = [
        place for place in places if not any(_meet(_number_box(sheet, number, place, size), other) for other in taken)
    ]
    return _number(sheet, number, (free or places)[0], size, colour)


def _meet(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _number(sheet: np.ndarray, number: int, middle: tuple[int, int], size: float, colour: tuple[int, int, int]) -> _Box:
    """Write a number into a box around `middle`, inside the sheet; returns the box."""
    x0, y0, x1, y1 = _number_box(sheet, number, middle, size)
    cv2.rectangle(sheet, (x0, y0), (x1, y1), colour, -1)
    cv2.putText(sheet, str(number), (x0 + 5, y1 - 8), _FONT, size, _WHITE, _stroke(size), cv2.LINE_AA)
    return x0, y0, x1, y1


def _number_box(sheet: np.ndarray, number: int, middle: tuple[int, int], size: float) -> _Box:
    (wide, high), _ = cv2.getTextSize(str(number), _FONT, size, _stroke(size))
    wide, high = wide + 10, high + 16
    x = int(np.clip(middle[0] - wide // 2, 0, max(0, sheet.shape[1] - wide)))
    y = int(np.clip(middle[1] - high // 2, 0, max(0, sheet.shape[0] - high)))
    return x, y, x + wide, y + high


def _stroke(size: float) -> int:
    return max(1, round(3 * size))


def _bar(verdict: Verdict, width: int, colour: tuple[int, int, int]) -> np.ndarray:
    height = width // 7
    bar = np.full((height, width, 3), colour, np.uint8)
    word = _WORDS[verdict.result]
    size = _fitting(word, width // 2, 0.55 * height)
    (wide, high), _ = cv2.getTextSize(word, _FONT, size, round(5 * size))
    place = (width // 24, (height + high) // 2)
    cv2.putText(bar, word, place, _FONT, size, _WHITE, max(2, round(4 * size)), cv2.LINE_AA)
    left = place[0] + wide + width // 24
    count = len(verdict.findings)
    note = f"{count} finding{'s' * (count > 1)}" if count else verdict.sentence
    for letter in height * np.geomspace(0.22, 0.08, 8):
        lines = _wrapped(note, width - left - width // 40, letter)
        if _LINE * letter * len(lines) <= 0.95 * height:
            break
    _write(bar, lines, left, height, letter)
    return bar


def _sentences(verdict: Verdict, width: int) -> list[np.ndarray]:
    strips = []
    for number, finding in enumerate(verdict.findings[:_MOST], start=1):
        height = width // 16
        strip = np.full((height, width, 3), 30, np.uint8)
        text = f"{number}  {finding.sentence}"
        size = _fitting(text, width - width // 20, 0.45 * height)
        (_, high), _ = cv2.getTextSize(text, _FONT, size, 2)
        place = (width // 40, (height + high) // 2)
        cv2.putText(strip, text, place, _FONT, size, _WHITE, max(2, round(2 * size)), cv2.LINE_AA)
        strips.append(strip)
    return strips


def _fitting(text: str, width: float, height: float) -> float:
    """The largest font scale at which a text is within a width and a height."""
    (wide, high), _ = cv2.getTextSize(text, _FONT, 1.0, 2)
    return min(width / max(wide, 1), height / max(high, 1))


def _wrapped(text: str, width: float, height: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        (wide, high), _ = cv2.getTextSize(longer, _FONT, 1.0, 2)
        if wide * height / max(high, 1) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _write(bar: np.ndarray, lines: list[str], left: int, height: int, letter: float) -> None:
    size = letter / cv2.getTextSize("X", _FONT, 1.0, 2)[0][1]
    step = round(_LINE * letter)
    top = (height - step * len(lines)) // 2 + round(1.3 * letter)
    for i, line in enumerate(lines):
        cv2.putText(bar, line, (left, top + i * step), _FONT, size, _WHITE, max(2, round(2 * size)), cv2.LINE_AA)
