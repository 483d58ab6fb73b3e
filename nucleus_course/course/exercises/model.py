"""Checks of the exercises on the network and its training (notebooks 02 and 03)."""

from collections.abc import Callable

import numpy as np

from nucleus_course.course.exercises.checks import Case, CheckResult, run_check


def check_box_iou(answer: Callable) -> CheckResult:
    """``box_iou(a, b)``: intersection over union of two boxes (y1, x1, y2, x2)."""
    a = (0.0, 0.0, 4.0, 4.0)
    return run_check(
        answer,
        [
            Case((a, (0.0, 0.0, 4.0, 4.0)), 1.0, "a box with itself"),
            Case((a, (0.0, 2.0, 4.0, 6.0)), 1 / 3, "half of each is shared: 8 / (16 + 16 - 8)"),
            Case((a, (1.0, 1.0, 3.0, 3.0)), 0.25, "one inside the other"),
            Case(
                (a, (5.0, 5.0, 8.0, 8.0)),
                0.0,
                "apart in both directions: two negative lengths are no overlap",
            ),
            Case((a, (0.0, 4.0, 4.0, 8.0)), 0.0, "sharing an edge only"),
        ],
        name="box_iou",
    )


def check_encode_box(answer: Callable) -> CheckResult:
    """``encode_box(anchor, box) -> (dy, dx, log dh, log dw)`` relative to the anchor (Ren et al. 2015)."""
    anchor = (10.0, 10.0, 26.0, 26.0)
    return run_check(
        answer,
        [
            Case((anchor, anchor), (0, 0, 0, 0), "the anchor itself needs no change"),
            Case(
                (anchor, (14.0, 10.0, 30.0, 26.0)),
                (0.25, 0, 0, 0),
                "moved down by 4, a quarter of the anchor's height",
            ),
            Case(
                (anchor, (2.0, 10.0, 34.0, 26.0)),
                (0, 0, np.log(2), 0),
                "twice as high about the same centre",
            ),
            Case(
                ((0.0, 0.0, 8.0, 32.0), (2.0, 8.0, 6.0, 24.0)),
                (0, 0, np.log(0.5), np.log(0.5)),
                "half as high and half as wide about the same centre",
            ),
            Case(
                ((0.0, 0.0, 8.0, 32.0), (4.0, 0.0, 12.0, 16.0)),
                (0.5, -0.25, 0, np.log(0.5)),
                "everything at once",
            ),
        ],
        name="encode_box",
    )


def _greedy_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """The slow reference: go through the boxes by falling score, keep one, drop what overlaps it more."""

    def overlap(p, q):
        height = min(p[2], q[2]) - max(p[0], q[0])
        width = min(p[3], q[3]) - max(p[1], q[1])
        shared = max(height, 0) * max(width, 0)
        return shared / ((p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - shared)

    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(overlap(boxes[index], boxes[other]) <= threshold for other in kept):
            kept.append(int(index))
    return np.array(kept, int)


def check_nms(answer: Callable) -> CheckResult:
    """``nms(boxes, scores, iou_threshold)``: indices kept by greedy NMS, best score first."""
    pair = np.array([[0, 0, 10, 10], [0, 1, 10, 11], [30, 30, 40, 40]], np.float32)
    chain = np.array([[0, 0, 10, 10], [0, 4, 10, 14], [0, 8, 10, 18]], np.float32)
    rng = np.random.default_rng(7)
    corners = rng.uniform(0, 40, (12, 2))
    crowd = np.concatenate([corners, corners + rng.uniform(8, 16, (12, 2))], axis=1).astype(
        np.float32
    )
    crowd_scores = rng.permutation(12).astype(np.float32) / 12
    return run_check(
        answer,
        [
            Case(
                (pair, np.array([0.6, 0.9, 0.5]), 0.5),
                np.array([1, 2]),
                "of two that overlap the better stays, in score order",
            ),
            Case(
                (pair, np.array([0.6, 0.9, 0.95]), 0.5),
                np.array([2, 1]),
                "the answer is in order of falling score",
            ),
            Case(
                (chain, np.array([0.9, 0.8, 0.7]), 0.3),
                np.array([0, 2]),
                "a chain: the middle box is dropped, and a dropped box drops nobody",
            ),
            Case(
                (pair, np.array([0.6, 0.9, 0.5]), 0.9),
                np.array([1, 0, 2]),
                "a permissive threshold keeps all three",
            ),
            Case(
                (crowd, crowd_scores, 0.2),
                _greedy_nms(crowd, crowd_scores, 0.2),
                "twelve boxes in a crowd",
            ),
        ],
        name="nms",
    )


def check_bilinear(answer: Callable) -> CheckResult:
    """``bilinear(grid, y, x)``: value between cell centres; cell (r, c) has its centre at (r + 0.5, c + 0.5)."""
    grid = np.arange(25, dtype=np.float32).reshape(5, 5)
    steep = np.array([[0.0, 0.0], [8.0, 16.0]], np.float32)
    return run_check(
        answer,
        [
            Case((grid, 2.5, 2.5), 12.0, "a cell's own centre gives the cell's value"),
            Case((grid, 2.5, 3.0), 12.5, "half way between two neighbours in a row"),
            Case((grid, 2.0, 2.5), 9.5, "half way between two neighbours in a column"),
            Case(
                (steep, 1.25, 0.75),
                7.5,
                "a quarter of the way from the first column to the second, three quarters down",
            ),
            Case(
                (grid, 0.1, 0.1),
                0.0,
                "outside the outermost centres the border's value is repeated",
            ),
            Case((grid, 4.9, 4.9), 24.0, "the same at the far corner"),
        ],
        name="bilinear",
    )


def check_pyramid_level(answer: Callable) -> CheckResult:
    """``pyramid_level(height, width)``: floor(4 + log2(sqrt(h w) / 224)), kept within 2 to 5 (Lin et al. 2017)."""
    return run_check(
        answer,
        [
            Case((224.0, 224.0), 4, "a box of ImageNet's size goes to level 4"),
            Case((112.0, 112.0), 3, "half the size is one level down"),
            Case((223.0, 223.0), 3, "a little below the limit: floor, not round"),
            Case((56.0, 224.0), 3, "the rule looks at the square root of the area"),
            Case((16.0, 16.0), 2, "a small nucleus would fall below the pyramid"),
            Case((1800.0, 1800.0), 5, "and a huge one above it"),
        ],
        name="pyramid_level",
    )


def check_paste_mask(answer: Callable) -> CheckResult:
    """``paste_mask(probs, box, height, width)``: (H, W) bool, from a mask grid stretched over its box."""
    full = np.ones((2, 2), np.float32)
    left = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    top = np.array([[1.0, 1.0], [0.0, 0.0]], np.float32)

    def rows(*text):
        return np.array([[cell == "#" for cell in row] for row in text])

    return run_check(
        answer,
        [
            Case(
                (full, (1.0, 2.0, 3.0, 5.0), 4, 6),
                rows("......", "..###.", "..###.", "......"),
                "a full mask fills exactly the pixels whose centres lie in the box",
            ),
            Case(
                (left, (0.0, 0.0, 4.0, 8.0), 4, 8),
                rows(*["####...."] * 4),
                "the left half of a stretched mask",
            ),
            Case(
                (top, (0.0, 0.0, 4.0, 8.0), 5, 8),
                rows("########", "########", "........", "........", "........"),
                "the upper half; rows of the mask run down the image",
            ),
            Case(
                (np.array([[0.9, 0.4]], np.float32), (0.0, 0.0, 2.0, 8.0), 2, 8),
                rows("#####...", "#####..."),
                "probabilities change smoothly between cell centres (bilinear, not nearest)",
            ),
            Case(
                (full, (-1.0, -1.0, 1.6, 1.4), 3, 3),
                rows("#..", "#..", "..."),
                "a box that leaves the image; a pixel counts if its centre is inside",
            ),
        ],
        name="paste_mask",
    )


def check_smooth_l1(answer: Callable) -> CheckResult:
    """``smooth_l1(difference)`` elementwise: 0.5 d^2 below 1, |d| - 0.5 above (Girshick 2015)."""
    return run_check(
        answer,
        [
            Case(
                (np.array([0.0, 0.5, 1.0]),),
                np.array([0.0, 0.125, 0.5]),
                "small differences: a parabola",
            ),
            Case(
                (np.array([2.0, 10.0]),), np.array([1.5, 9.5]), "large differences: a straight line"
            ),
            Case((np.array([-0.5, -3.0]),), np.array([0.125, 2.5]), "the sign does not matter"),
        ],
        name="smooth_l1",
    )


def check_clip_by_global_norm(answer: Callable) -> CheckResult:
    """``clip_by_global_norm(gradients, limit)``: a list of arrays, all scaled by the same factor."""
    long = [np.array([3.0, 4.0]), np.array([[12.0]])]
    return run_check(
        answer,
        [
            Case(
                (long, 6.5),
                [np.array([1.5, 2.0]), np.array([[6.0]])],
                "a norm of 13 brought to 6.5: everything halves",
            ),
            Case(
                ([np.array([3.0]), np.array([4.0])], 4.5),
                [np.array([2.7]), np.array([3.6])],
                "each is below the limit, together they are not",
            ),
            Case(
                ([np.array([0.3, 0.4])], 5.0),
                [np.array([0.3, 0.4])],
                "a short gradient is left alone, never stretched",
            ),
            Case(([np.array([0.0, 0.0])], 5.0), [np.array([0.0, 0.0])], "no division by zero"),
        ],
        name="clip_by_global_norm",
    )


def check_warmup_cosine(answer: Callable) -> CheckResult:
    """``warmup_cosine(step, total, warmup, peak)``: linear rise over ``warmup`` steps, then half a cosine to 0."""
    return run_check(
        answer,
        [
            Case((0, 100, 20, 1.0), 0.0, "the first step"),
            Case((10, 100, 20, 1.0), 0.5, "half way through the warm-up"),
            Case((20, 100, 20, 0.01), 0.01, "the peak"),
            Case(
                (60, 100, 20, 1.0), 0.5, "half way down: the cosine begins where the warm-up ends"
            ),
            Case((40, 100, 20, 1.0), 0.5 * (1 + np.cos(np.pi / 4)), "a quarter of the way down"),
            Case((100, 100, 20, 1.0), 0.0, "the end"),
        ],
        name="warmup_cosine",
    )
