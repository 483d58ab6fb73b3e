"""Checks of the exercises on evaluation and error analysis (notebooks 04 and 05)."""

import numpy as np

from nucleus_course.course.exercises.checks import Case, check, drawn_cases
from nucleus_course.course.exercises.data import picture, random_labels


@check
def check_mask_iou() -> list[Case]:
    """``mask_iou(a, b)``: intersection over union of two (H, W) bool masks; 0 if both are empty."""
    a = picture("11..", "11..") > 0
    b = picture(".11.", ".11.") > 0
    c = picture("..11", "..11") > 0
    none = np.zeros((2, 4), bool)
    return [
        Case((a, a), 1.0, "a mask with itself"),
        Case((a, b), 1 / 3, "2 pixels shared, 6 in the union"),
        Case((a, c), 0.0, "no overlap"),
        Case((none, none), 0.0, "two empty masks: 0, and no division by zero"),
        Case((a, none), 0.0, "the second is empty"),
        Case((none, a), 0.0, "the first is empty"),
        Case((a, np.ones((2, 4), bool)), 0.5, "one inside the other, the larger second"),
        Case((np.ones((2, 4), bool), a), 0.5, "the larger first"),
        Case((a[:1], b[:1]), 1 / 3, "one row of pixels"),
        Case((a.T, b.T), 1 / 3, "an image that is higher than wide"),
        *drawn_cases(
            lambda a, b: (a * b).sum() / (a.astype(int) + b > 0).sum(),
            lambda rng: tuple(rng.uniform(0, 1, (2, 4, 5)) < 0.6),
            "two random masks",
        ),
    ]


@check
def check_match() -> list[Case]:
    """``match(iou, threshold)``: iou (D, T), detections by falling score; for each the index of its nucleus or -1."""

    def reference(iou, threshold):
        left, partners = np.array(iou), []
        for index in range(len(left)):
            best = int(left[index].argmax())
            partners.append(best if left[index, best] >= threshold else -1)
            if partners[-1] >= 0:
                left[:, best] = -1.0
        return np.array(partners)

    def case(iou, expected, about, threshold=0.5):
        return Case((np.array(iou), threshold), np.array(expected), about)

    return [
        case([[0.8, 0.0], [0.0, 0.7]], [0, 1], "two clear pairs"),
        case(
            [[0.6], [0.9]],
            [0, -1],
            "a nucleus is taken once; the higher score comes first even where its overlap is smaller",
        ),
        case([[0.7, 0.6], [0.8, 0.1]], [0, -1], "the second detection's only partner is taken"),
        case(
            [[0.7, 0.6], [0.8, 0.55]],
            [0, 1],
            "when the best partner is taken, the next best above the threshold is used",
        ),
        case([[0.3, 0.2]], [-1], "below the threshold"),
        case([[0.49999]], [-1], "just below the threshold"),
        case([[0.5]], [0], "COCO counts an IoU equal to the threshold as a match"),
        case(np.zeros((2, 0)), [-1, -1], "an image without nuclei"),
        case([[0.6, 0.8]], [1], "the best free nucleus, not the first"),
        case([[0.6, 0.72]], [-1], "another threshold: 0.75", threshold=0.75),
        case([[0.3], [0.6]], [-1, 0], "a miss takes no nucleus"),
        *drawn_cases(
            reference,
            lambda rng: (rng.uniform(0, 1, (5, 4)), float(rng.choice([0.3, 0.5, 0.7]))),
            "five detections, four nuclei",
            6,
        ),
    ]


@check
def check_average_precision() -> list[Case]:
    """``average_precision(hits, nuclei)``: COCO's mean of interpolated precision at recall 0, 0.01, ... 1."""

    def reference(hits, nuclei):
        points = [
            (sum(hits[: n + 1]) / nuclei, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))
        ]
        best = [max((p for r, p in points if r >= k / 100), default=0.0) for k in range(101)]
        return sum(best) / 101

    def case(hits, nuclei, expected, about):
        return Case((np.array(hits, bool), nuclei), expected, about)

    return [
        case([1, 1], 2, 1.0, "a perfect detector"),
        case([0, 0], 2, 0.0, "nothing right"),
        case([1], 2, 51 / 101, "half of the nuclei: recall 0.00 to 0.50 is 51 of the 101 points"),
        case([0, 1], 1, 0.5, "a false alarm before the hit"),
        case([1, 0, 1], 2, (51 + 50 * 2 / 3) / 101, "a false alarm between two hits"),
        case(
            [0, 1, 1],
            2,
            2 / 3,
            "precision is made to fall: at each recall the best precision at that recall or beyond",
        ),
        case([], 3, 0.0, "no detections"),
        case([1] * 10, 1001, 1 / 101, "a recall of 0.00999 does not reach 0.01"),
        case([1] * 3 + [0] * 4, 3, 1.0, "false alarms after the last hit"),
        *drawn_cases(
            reference, lambda rng: (rng.uniform(0, 1, 12) < 0.6, 13), "twelve random detections"
        ),
    ]


@check
def check_label_image() -> list[Case]:
    """``label_image(masks, scores)``: (H, W) ints; detection i becomes i + 1; the higher score keeps a shared pixel."""

    def reference(masks, scores):
        best = np.where(masks, scores[:, None, None], 0.0)
        return np.where(masks.any(axis=0), best.argmax(axis=0) + 1, 0)

    two = np.stack([picture("11..", "11..") > 0, picture(".11.", ".11.") > 0])
    three = np.stack(
        [picture("111", "...") > 0, picture("111", "111") > 0, picture("..1", "..1") > 0]
    )
    ids = np.arange(1, 301).reshape(15, 20)
    many = ids == np.arange(1, 301)[:, None, None]
    return [
        Case((two, np.array([0.9, 0.3])), picture("112.", "112."), "the first scores higher"),
        Case((two, np.array([0.3, 0.9])), picture("122.", "122."), "the second scores higher"),
        Case(
            (three, np.array([0.5, 0.4, 0.8])),
            picture("113", "223"),
            "three layers; ids follow the input order",
        ),
        Case((np.zeros((0, 2, 3), bool), np.zeros(0)), np.zeros((2, 3), int), "no detections"),
        Case((two, np.array([0.02, 0.01])), picture("112.", "112."), "low scores paint as well"),
        Case((two, np.array([0.90001, 0.90002])), picture("122.", "122."), "better by a hair"),
        Case((two, np.array([0.90002, 0.90001])), picture("112.", "112."), "the other by a hair"),
        Case((two[:1].swapaxes(1, 2), np.array([0.7])), picture("11", "11", "..", ".."), "one"),
        Case((many, np.linspace(0.9, 0.1, 300)), ids, "three hundred: a byte counts to 255 only"),
        *drawn_cases(
            reference,
            lambda rng: (rng.uniform(0, 1, (4, 3, 5)) < 0.5, rng.permutation(4) / 4 + 0.1),
            "four random masks",
            3,
        ),
    ]


@check
def check_classify_detection() -> list[Case]:
    """``classify_detection(ious, taken)`` -> "matched", "duplicate", "poor boundary" or "spurious".

    ``ious`` (T,) are the detection's IoUs with all nuclei; ``taken`` (T,) bool says which nuclei a
    better-scored detection has matched. From 0.5 it is a match; from 0.1 a poor boundary.
    """

    def case(ious, taken, expected, about):
        return Case((np.array(ious, float), np.array(taken, bool)), expected, about)

    return [
        case([0.8, 0.0], [0, 0], "matched", "a good overlap with a free nucleus"),
        case([0.8, 0.0], [1, 0], "duplicate", "the nucleus already has its detection"),
        case([0.3, 0.05], [0, 0], "poor boundary", "in the right place, in the wrong shape"),
        case([0.04, 0.0], [0, 0], "spurious", "almost nothing there"),
        case([0.7, 0.5], [1, 0], "matched", "0.5 itself matches, and this nucleus is free"),
        case([0.3, 0.0], [1, 0], "poor boundary", "too little overlap to be a duplicate"),
        case([], [], "spurious", "an image without nuclei"),
        case([0.5], [0], "matched", "0.5 with a free nucleus"),
        case([0.5], [1], "duplicate", "0.5 with a taken nucleus"),
        case([0.1], [0], "poor boundary", "0.1 itself"),
        case([0.49999], [0], "poor boundary", "just below a match"),
        case([0.09999], [1], "spurious", "just below a poor boundary"),
        case(
            [0.3, 0.6],
            [0, 1],
            "duplicate",
            "a taken nucleus by 0.5 or more comes before a free one by less",
        ),
        case([0.05, 0.3], [0, 1], "poor boundary", "'any' includes the taken nuclei"),
        case([0.2, 0.2, 0.2], [0, 0, 0], "poor boundary", "overlaps do not add up"),
        case([0.6, 0.9], [0, 0], "matched", "two free nuclei"),
        case([0.6, 0.9], [1, 1], "duplicate", "two taken ones"),
    ]


@check
def check_paired_interval() -> list[Case]:
    """``paired_interval(a, b, draws)`` -> (low, high): 95% percentile interval of mean(b - a).

    ``a`` and ``b`` (N,) are two models' scores on the same images; ``draws`` (R, N) are image indices,
    one bootstrap sample per row.
    """
    rng = np.random.default_rng(11)
    a, b = rng.uniform(40, 90, 20), rng.uniform(40, 90, 20)
    draws = rng.integers(0, 20, (200, 20))
    means = (b - a)[draws].mean(axis=1)
    many = np.arange(300.0)
    return [
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
        Case((np.array([50.0]), np.array([60.0]), np.zeros((4, 1), int)), (10, 10), "one image"),
        Case((0 * many, many, np.full((3, 300), 299)), (299, 299), "three hundred images"),
        Case(
            (a, b, draws),
            tuple(np.percentile(means, [2.5, 97.5])),
            "twenty images, two hundred draws",
        ),
    ]


@check
def check_edge_ids() -> list[Case]:
    """``edge_ids(labels) -> set`` of the ids of nuclei that touch the image's border."""

    def reference(labels):
        inner = np.zeros(labels.shape, bool)
        inner[1:-1, 1:-1] = True
        return set(labels[~inner].tolist()) - {0}

    return [
        Case(
            (picture("1....", ".22..", ".22.3", "....."),),
            {1, 3},
            "one at a corner, one at the right edge",
        ),
        Case((picture(".....", ".222.", ".222.", "....."),), set(), "nothing at the edge"),
        Case((picture(".4...", ".4...", "...5.", "7..5."),), {4, 5, 7}, "top and bottom"),
        Case((picture(".....", "6....", "....."),), {6}, "the left edge alone"),
        Case((picture(".....", "....6", "....."),), {6}, "the right edge alone"),
        Case((picture("..6..", ".....", "....."),), {6}, "the top edge alone"),
        Case((picture(".....", ".....", "..6.."),), {6}, "the bottom edge alone"),
        Case((picture("11", "22"),), {1, 2}, "no background at all"),
        Case((picture("..1.2.."),), {1, 2}, "an image of one row is all edge"),
        Case((picture("...", "...", "..."),), set(), "an image without nuclei"),
        *drawn_cases(reference, lambda rng: (random_labels(rng),), "a random image"),
    ]
