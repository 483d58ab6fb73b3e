"""Checks of the exercises on evaluation and error analysis (notebooks 04 and 05)."""

from collections.abc import Callable

import numpy as np

from nucleus_course.course.exercises.checks import Case, CheckResult, run_check
from nucleus_course.course.exercises.data import picture


def check_mask_iou(answer: Callable) -> CheckResult:
    """``mask_iou(a, b)``: intersection over union of two (H, W) bool masks; 0 where both are empty."""
    a = picture("11..", "11..") > 0
    b = picture(".11.", ".11.") > 0
    c = picture("..11", "..11") > 0
    none = np.zeros((2, 4), bool)
    return run_check(
        answer,
        [
            Case((a, a), 1.0, "a mask with itself"),
            Case((a, b), 1 / 3, "2 pixels shared, 6 in the union"),
            Case((a, c), 0.0, "no overlap"),
            Case((none, none), 0.0, "two empty masks: 0, and no division by zero"),
        ],
        name="mask_iou",
    )


def check_match(answer: Callable) -> CheckResult:
    """``match(iou, threshold)``: iou (D, T), detections by falling score; for each the index of its nucleus or -1."""
    return run_check(
        answer,
        [
            Case((np.array([[0.8, 0.0], [0.0, 0.7]]), 0.5), np.array([0, 1]), "two clear pairs"),
            Case(
                (np.array([[0.6], [0.9]]), 0.5),
                np.array([0, -1]),
                "a nucleus is taken once; the higher score comes first even where its overlap is smaller",
            ),
            Case(
                (np.array([[0.7, 0.6], [0.8, 0.1]]), 0.5),
                np.array([0, -1]),
                "the second detection's only partner is taken",
            ),
            Case(
                (np.array([[0.7, 0.6], [0.8, 0.55]]), 0.5),
                np.array([0, 1]),
                "when the best partner is taken, the next best above the threshold is used",
            ),
            Case((np.array([[0.3, 0.2]]), 0.5), np.array([-1]), "below the threshold"),
            Case(
                (np.array([[0.5]]), 0.5),
                np.array([0]),
                "COCO counts an IoU equal to the threshold as a match",
            ),
            Case((np.zeros((2, 0)), 0.5), np.array([-1, -1]), "an image without nuclei"),
        ],
        name="match",
    )


def check_average_precision(answer: Callable) -> CheckResult:
    """``average_precision(hits, nuclei)``: COCO's mean of interpolated precision at recall 0, 0.01, ... 1."""
    return run_check(
        answer,
        [
            Case((np.array([True, True]), 2), 1.0, "a perfect detector"),
            Case((np.array([False, False]), 2), 0.0, "nothing right"),
            Case(
                (np.array([True]), 2),
                51 / 101,
                "half of the nuclei: recall 0.00 to 0.50 is 51 of the 101 points",
            ),
            Case((np.array([False, True]), 1), 0.5, "a false alarm before the hit"),
            Case(
                (np.array([True, False, True]), 2),
                (51 + 50 * 2 / 3) / 101,
                "a false alarm between two hits",
            ),
            Case(
                (np.array([False, True, True]), 2),
                2 / 3,
                "precision is made to fall: at each recall the best precision at that recall or beyond",
            ),
            Case((np.zeros(0, bool), 3), 0.0, "no detections"),
        ],
        name="average_precision",
    )


def check_label_image(answer: Callable) -> CheckResult:
    """``label_image(masks, scores)``: (H, W) ints; detection i becomes i + 1; the higher score keeps a shared pixel."""
    two = np.stack([picture("11..", "11..") > 0, picture(".11.", ".11.") > 0])
    three = np.stack(
        [picture("111", "...") > 0, picture("111", "111") > 0, picture("..1", "..1") > 0]
    )
    return run_check(
        answer,
        [
            Case((two, np.array([0.9, 0.3])), picture("112.", "112."), "the first scores higher"),
            Case((two, np.array([0.3, 0.9])), picture("122.", "122."), "the second scores higher"),
            Case(
                (three, np.array([0.5, 0.4, 0.8])),
                picture("113", "223"),
                "three layers; ids follow the input order",
            ),
            Case((np.zeros((0, 2, 3), bool), np.zeros(0)), np.zeros((2, 3), int), "no detections"),
        ],
        name="label_image",
    )


def check_classify_detection(answer: Callable) -> CheckResult:
    """``classify_detection(ious, taken)`` -> "matched", "duplicate", "poor boundary" or "spurious".

    ``ious`` (T,) are the detection's overlaps with all nuclei; ``taken`` (T,) bool says which nuclei
    a better-scored detection has already matched. 0.5 and above is a match; 0.1 and above a poor boundary.
    """
    free = np.array([False, False])
    return run_check(
        answer,
        [
            Case((np.array([0.8, 0.0]), free), "matched", "a good overlap with a free nucleus"),
            Case(
                (np.array([0.8, 0.0]), np.array([True, False])),
                "duplicate",
                "the nucleus already has its detection",
            ),
            Case(
                (np.array([0.3, 0.05]), free),
                "poor boundary",
                "in the right place, in the wrong shape",
            ),
            Case((np.array([0.04, 0.0]), free), "spurious", "almost nothing there"),
            Case(
                (np.array([0.7, 0.5]), np.array([True, False])),
                "matched",
                "0.5 itself matches, and this nucleus is free",
            ),
            Case(
                (np.array([0.3, 0.0]), np.array([True, False])),
                "poor boundary",
                "too little overlap to be a duplicate",
            ),
            Case((np.zeros(0), np.zeros(0, bool)), "spurious", "an image without nuclei"),
        ],
        name="classify_detection",
    )


def check_paired_interval(answer: Callable) -> CheckResult:
    """``paired_interval(a, b, draws)`` -> (low, high): 95% percentile interval of mean(b - a).

    ``a`` and ``b`` (N,) are two models' scores on the same images; ``draws`` (R, N) are image indices,
    one bootstrap sample a row.
    """
    rng = np.random.default_rng(11)
    a, b = rng.uniform(40, 90, 20), rng.uniform(40, 90, 20)
    draws = rng.integers(0, 20, (200, 20))
    means = (b - a)[draws].mean(axis=1)
    return run_check(
        answer,
        [
            Case(
                (
                    np.array([1.0, 2.0, 3.0]),
                    np.array([2.0, 3.0, 4.0]),
                    np.array([[0, 0, 0], [0, 1, 2], [2, 2, 1]]),
                ),
                (1.0, 1.0),
                "b is better by one on every image, whichever images are drawn",
            ),
            Case(
                (np.array([0.0, 0.0]), np.array([4.0, -4.0]), np.array([[0, 0], [1, 1]])),
                (-3.8, 3.8),
                "better on one image, worse on the other",
            ),
            Case(
                (a, b, draws),
                tuple(np.percentile(means, [2.5, 97.5])),
                "twenty images, two hundred draws",
            ),
        ],
        name="paired_interval",
    )


def check_edge_ids(answer: Callable) -> CheckResult:
    """``edge_ids(labels) -> set`` of the ids of nuclei that touch the image's border."""
    return run_check(
        answer,
        [
            Case(
                (picture("1....", ".22..", ".22.3", "....."),),
                {1, 3},
                "one at a corner, one at the right edge",
            ),
            Case((picture(".....", ".222.", ".222.", "....."),), set(), "nothing at the edge"),
            Case((picture(".4...", ".4...", "...5.", "7..5."),), {4, 5, 7}, "top and bottom"),
        ],
        name="edge_ids",
    )
