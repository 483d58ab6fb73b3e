"""Checks of the exercises on images, masks and measurements (notebooks 00, 01 and 06)."""

from collections.abc import Callable

import numpy as np

from nucleus_course.course.exercises.checks import Case, CheckResult, run_check


def picture(*rows: str) -> np.ndarray:
    """A small label image from text: ``.`` is background, digits are nucleus ids; (H, W) int32."""
    return np.array(
        [[0 if cell == "." else int(cell) for cell in row] for row in rows], dtype=np.int32
    )


def check_box_of(answer: Callable) -> CheckResult:
    """``box_of(mask) -> (y1, x1, y2, x2)``: the half-open bounding box of a (H, W) bool mask."""
    single = picture("......", "...1..", "......") > 0
    wide = picture(".......", ".11111.", "..111..", ".......") > 0
    parts = picture("1.....", "......", "......", "....11") > 0
    return run_check(
        answer,
        [
            Case(
                (single,),
                (1, 3, 2, 4),
                "a single pixel covers one unit square, so its box is 1 x 1",
            ),
            Case((wide,), (1, 1, 3, 6), "a wide nucleus: rows first, then columns"),
            Case((parts,), (0, 0, 4, 6), "two parts of one nucleus that touch the image's edges"),
        ],
        name="box_of",
    )


def check_touching_pairs(answer: Callable) -> CheckResult:
    """``touching_pairs(labels) -> set`` of (i, j), i < j, for nuclei that share a pixel edge."""
    return run_check(
        answer,
        [
            Case((picture("1122", "1122"),), {(1, 2)}, "two nuclei side by side"),
            Case(
                (picture("11..", "33..", "...2"),),
                {(1, 3)},
                "one above the other; the background is not a nucleus",
            ),
            Case(
                (picture("22..", "22..", "..11"),),
                set(),
                "touching at a corner only does not count",
            ),
            Case(
                (picture("3311", "3311", "..22", "1122"),),
                {(1, 2), (1, 3)},
                "the smaller id comes first, each pair once",
            ),
            Case((picture("....", "...."),), set(), "an image without nuclei"),
        ],
        name="touching_pairs",
    )


def check_flip_boxes(answer: Callable) -> CheckResult:
    """``flip_boxes(boxes, width)``: (N, 4) boxes after the image is mirrored left to right."""
    one = np.array([[0, 0, 1, 1]], np.float32)
    boxes = np.array([[2, 1, 5, 4], [0, 6, 3, 10]], np.float32)
    return run_check(
        answer,
        [
            Case((one, 10), np.array([[0, 9, 1, 10]]), "the first pixel of a row becomes the last"),
            Case(
                (boxes, 10),
                np.array([[2, 6, 5, 9], [0, 0, 3, 4]]),
                "x1 must stay the smaller of the two",
            ),
            Case((np.zeros((0, 4), np.float32), 10), np.zeros((0, 4)), "no boxes at all"),
        ],
        name="flip_boxes",
    )


def check_recall_under_cap(answer: Callable) -> CheckResult:
    """``recall_under_cap(counts, cap)``: the best recall over all nuclei when an image may keep ``cap``."""
    return run_check(
        answer,
        [
            Case((np.array([10, 20]), 100), 1.0, "no image reaches the cap"),
            Case(
                (np.array([50, 150]), 100),
                0.75,
                "the cap binds in one image; recall is over all nuclei together",
            ),
            Case(
                (np.array([375, 5, 20]), 100), 0.3125, "one crowded image outweighs two sparse ones"
            ),
            Case((np.array([0, 40]), 30), 0.75, "an image without nuclei adds nothing"),
        ],
        name="recall_under_cap",
    )


def check_measure(answer: Callable) -> CheckResult:
    """``measure(labels, micrometres_per_pixel) -> (N, 3)``: id, area in um2, equivalent diameter in um."""
    labels = picture("11...", "11.3.", "...3.")

    def rows(areas: dict[int, int], scale: float) -> np.ndarray:
        table = [
            (i, n * scale**2, np.sqrt(4 * n * scale**2 / np.pi)) for i, n in sorted(areas.items())
        ]
        return np.array(table, float).reshape(-1, 3)

    return run_check(
        answer,
        [
            Case(
                (labels, 1.0),
                rows({1: 4, 3: 2}, 1.0),
                "ids need not be consecutive; the background is not measured",
            ),
            Case(
                (labels, 0.5),
                rows({1: 4, 3: 2}, 0.5),
                "half a micrometre a pixel: an area scales with the square",
            ),
            Case((np.zeros((3, 3), np.int32), 0.5), np.zeros((0, 3)), "an image without nuclei"),
        ],
        name="measure",
    )


def check_density(answer: Callable) -> CheckResult:
    """``density(count, height, width, micrometres_per_pixel)``: nuclei per square millimetre."""
    return run_check(
        answer,
        [
            Case(
                (100, 1000, 1000, 1.0),
                100.0,
                "1000 x 1000 pixels of 1 um are one square millimetre",
            ),
            Case(
                (30, 500, 1000, 0.5),
                240.0,
                "500 x 1000 pixels of 0.5 um are an eighth of a square millimetre",
            ),
            Case((0, 256, 256, 0.25), 0.0, "no nuclei"),
        ],
        name="density",
    )
