"""Checks of the exercises on the parts of the network (notebook 02)."""

import numpy as np

from nucleus_course.course.exercises.checks import Case, check, drawn_cases


def _random_box(rng: np.random.Generator, extent: float = 12.0) -> tuple:
    y, x = rng.uniform(0, extent, 2)
    height, width = rng.uniform(2, extent, 2)
    return float(y), float(x), float(y + height), float(x + width)


def _iou(p, q) -> float:
    height = max(min(p[2], q[2]) - max(p[0], q[0]), 0)
    width = max(min(p[3], q[3]) - max(p[1], q[1]), 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (p, q)]
    return height * width / (sum(areas) - height * width)


@check
def check_box_iou() -> list[Case]:
    """``box_iou(a, b)``: intersection over union of two boxes (y1, x1, y2, x2)."""
    a = (0.0, 0.0, 4.0, 4.0)
    return [
        Case((a, (0.0, 0.0, 4.0, 4.0)), 1.0, "a box with itself"),
        Case((a, (0.0, 2.0, 4.0, 6.0)), 1 / 3, "half of each is shared: 8 / (16 + 16 - 8)"),
        Case((a, (1.0, 1.0, 3.0, 3.0)), 0.25, "one inside the other"),
        Case(
            (a, (5.0, 5.0, 8.0, 8.0)),
            0.0,
            "apart in both directions: two negative lengths are no overlap",
        ),
        Case((a, (0.0, 4.0, 4.0, 8.0)), 0.0, "sharing an edge only"),
        Case(
            (a, (1.0, 6.0, 3.0, 9.0)), 0.0, "side by side, apart: the shared width is not negative"
        ),
        Case((a, (6.0, 1.0, 9.0, 3.0)), 0.0, "one above the other, apart"),
        Case(((0.0, 0.0, 2.0, 6.0), (1.0, 4.0, 5.0, 7.0)), 2 / 22, "oblong boxes"),
        *drawn_cases(_iou, lambda rng: (_random_box(rng), _random_box(rng)), "two random boxes", 8),
    ]


@check
def check_encode_box() -> list[Case]:
    """``encode_box(anchor, box) -> (dy, dx, log dh, log dw)`` relative to the anchor (Ren et al. 2015)."""

    def reference(anchor, box):
        (ay, ah), (ax, aw), (by, bh), (bx, bw) = (
            ((b[i] + b[i + 2]) / 2, b[i + 2] - b[i]) for b in (anchor, box) for i in (0, 1)
        )
        return (by - ay) / ah, (bx - ax) / aw, np.log(bh / ah), np.log(bw / aw)

    anchor, wide = (10.0, 10.0, 26.0, 26.0), (0.0, 0.0, 8.0, 32.0)
    return [
        Case((anchor, anchor), (0, 0, 0, 0), "the anchor itself needs no change"),
        Case(
            (anchor, (14.0, 10.0, 30.0, 26.0)), (0.25, 0, 0, 0), "down by a quarter of its height"
        ),
        Case((anchor, (2.0, 10.0, 34.0, 26.0)), (0, 0, np.log(2), 0), "twice as high, same centre"),
        Case(
            (wide, (2.0, 8.0, 6.0, 24.0)),
            (0, 0, -np.log(2), -np.log(2)),
            "half of both, same centre",
        ),
        Case((wide, (4.0, 0.0, 12.0, 16.0)), (0.5, -0.25, 0, -np.log(2)), "everything at once"),
        Case(
            ((0.0, 0.0, 4.0, 4.0), (8.0, 4.0, 24.0, 20.0)),
            (3.5, 2.5, np.log(4), np.log(4)),
            "far away and much larger",
        ),
        *drawn_cases(
            reference, lambda rng: (_random_box(rng), _random_box(rng)), "two random boxes"
        ),
    ]


def _greedy_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """The slow reference: by falling score, keep boxes that no kept box overlaps by more than the threshold."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(_iou(boxes[index], boxes[other]) <= threshold for other in kept):
            kept.append(int(index))
    return np.array(kept, int)


@check
def check_nms() -> list[Case]:
    """``nms(boxes, scores, iou_threshold)``: indices kept by greedy NMS, best score first."""
    pair = np.array([[0, 0, 10, 10], [0, 1, 10, 11], [30, 30, 40, 40]], np.float32)
    chain = np.array([[0, 0, 10, 10], [0, 4, 10, 14], [0, 8, 10, 18]], np.float32)
    double = np.array([[0, 0, 10, 10], [0, 0, 10, 20]], np.float32)

    def draw(rng, threshold):
        boxes = np.array([_random_box(rng, 16.0) for _ in range(12)], np.float32)
        return boxes, rng.permutation(12).astype(np.float32) / 12, threshold

    def case(boxes, scores, threshold, kept, about):
        return Case((boxes, np.array(scores, float), threshold), np.array(kept, int), about)

    return [
        case(
            pair,
            [0.6, 0.9, 0.5],
            0.5,
            [1, 2],
            "of two that overlap the better stays, in score order",
        ),
        case(pair, [0.6, 0.9, 0.95], 0.5, [2, 1], "the answer is in order of falling score"),
        case(
            chain,
            [0.9, 0.8, 0.7],
            0.3,
            [0, 2],
            "a chain: the middle box is dropped, and a dropped box drops nobody",
        ),
        case(pair, [0.6, 0.9, 0.5], 0.9, [1, 0, 2], "a permissive threshold keeps all three"),
        case(
            double,
            [0.4, 0.8],
            0.5,
            [1, 0],
            "an overlap equal to the threshold is not more than it: both stay",
        ),
        case(double, [0.9, 0.8], 0.4999, [0], "an overlap just above the threshold: one goes"),
        case(double, [0.90001, 0.90002], 0.4, [1], "better by a hair"),
        case(pair[:1], [0.01], 0.5, [0], "one box, whatever its score"),
        case(pair[:0], [], 0.5, [], "no boxes at all"),
        *drawn_cases(_greedy_nms, lambda rng: draw(rng, 0.2), "twelve boxes in a crowd"),
        *drawn_cases(_greedy_nms, lambda rng: draw(rng, 0.6), "a permissive threshold", seed=5),
    ]


@check
def check_bilinear() -> list[Case]:
    """``bilinear(grid, y, x)``: value between cell centres; cell (r, c) has its centre at (r + 0.5, c + 0.5)."""

    def reference(grid, y, x):  # each cell weighs 1 at its centre, 0 a cell away
        near = [
            np.maximum(0, 1 - np.abs(np.clip(at - 0.5, 0, n - 1) - np.arange(n)))
            for at, n in zip((y, x), grid.shape)
        ]
        return float(near[0] @ grid @ near[1])

    wide = np.array([[0, 2, 4, 7], [1, 3, 5, 9]], np.float32)
    grid = np.arange(25, dtype=np.float32).reshape(5, 5)
    steep = np.array([[0.0, 0.0], [8.0, 16.0]], np.float32)
    return [
        Case((grid, 2.5, 2.5), 12.0, "a cell's own centre gives the cell's value"),
        Case((grid, 2.5, 3.0), 12.5, "half way between two neighbours in a row"),
        Case((grid, 2.0, 2.5), 9.5, "half way between two neighbours in a column"),
        Case(
            (steep, 1.25, 0.75),
            7.5,
            "a quarter of the way from the first column to the second, three quarters down",
        ),
        Case((grid, 0.1, 0.1), 0.0, "outside the outermost centres the border's value is repeated"),
        Case((grid, 4.9, 4.9), 24.0, "the same at the far corner"),
        Case((grid, 7.5, -2.0), 20.0, "far outside"),
        Case((grid, -2.0, 8.0), 4.0, "far outside on the other side"),
        Case((wide, 0.5, 2.5), 4.0, "a grid that is wider than high"),
        Case((wide.T, 2.5, 0.5), 4.0, "a grid that is higher than wide"),
        Case((wide[:1, 1:2], 0.2, 0.9), 2.0, "a grid of one cell"),
        *drawn_cases(
            reference,
            lambda rng: (rng.uniform(-9, 9, (3, 5)).astype("f4"), *rng.uniform((-1, -1), (4, 6))),
            "a random point, perhaps outside the grid",
            10,
        ),
    ]


@check
def check_pyramid_level() -> list[Case]:
    """``pyramid_level(height, width)``: floor(4 + log2(sqrt(h w) / 224)), kept within 2 to 5 (Lin et al. 2017)."""
    return [
        Case((224.0, 224.0), 4, "a box of ImageNet's size goes to level 4"),
        Case((112.0, 112.0), 3, "half the size is one level down"),
        Case((223.0, 223.0), 3, "a little below the limit: floor, not round"),
        Case((56.0, 224.0), 3, "the rule looks at the square root of the area"),
        Case((16.0, 16.0), 2, "a small nucleus would fall below the pyramid"),
        Case((1800.0, 1800.0), 5, "and a huge one above it"),
        Case((16.0, 784.0), 3, "a long box: not the mean of its sides"),
        Case((40.0, 160.0), 2, "nor the longer side"),
        Case((448.0, 448.0), 5, "level 5 begins at 448"),
        Case((447.0, 447.0), 4, "just below it"),
        Case((111.0, 111.0), 2, "just below level 3"),
        Case((223.9, 223.9), 3, "nearer to level 4"),
        Case((112.5, 111.6), 3, "level 3 by the part of a pixel in the height"),
        Case((111.6, 112.5), 3, "and in the width"),
    ]


@check
def check_paste_mask() -> list[Case]:
    """``paste_mask(probs, box, height, width)``: (H, W) bool, from a mask grid stretched over its box."""

    def reference(probs, box, height, width):
        out = np.zeros((height, width), bool)
        for r, c in np.ndindex(height, width):
            y, x = r + 0.5, c + 0.5
            if box[0] <= y < box[2] and box[1] <= x < box[3]:
                near = [
                    np.maximum(0, 1 - np.abs(np.clip(at * n - 0.5, 0, n - 1) - np.arange(n)))
                    for at, n in (
                        ((y - box[0]) / (box[2] - box[0]), probs.shape[0]),
                        ((x - box[1]) / (box[3] - box[1]), probs.shape[1]),
                    )
                ]
                out[r, c] = near[0] @ probs @ near[1] >= 0.5
        return out

    def draw(rng):
        y, x = rng.uniform(-2, 4, 2)
        box = (y, x, y + rng.uniform(3, 8), x + rng.uniform(3, 12))
        return rng.uniform(0, 1, (3, 5)).astype("f4"), box, 8, 11

    full = np.ones((2, 2), np.float32)
    left = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    top = np.array([[1.0, 1.0], [0.0, 0.0]], np.float32)

    def rows(*text):
        return np.array([[cell == "#" for cell in row] for row in text])

    return [
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
        Case((0.5 * full, (0.0, 0.0, 4.0, 4.0), 4, 4), rows(*["####"] * 4), "0.5 itself counts"),
        Case(
            (full, (0.5, 1.5, 2.5, 3.5), 4, 5),
            rows(".##..", ".##..", ".....", "....."),
            "a centre on the upper or left edge is inside, one on the lower or right is not",
        ),
        Case((full, (5.0, 5.0, 9.0, 9.0), 3, 4), rows(*["...."] * 3), "a box beyond the image"),
        Case((0.49989 * full, (0.0, 0.0, 2.0, 3.0), 2, 3), rows("...", "..."), "just below 0.5"),
        Case(
            (np.array([[0.9], [0.4]], np.float32), (0.0, 0.0, 8.0, 2.0), 8, 2),
            rows(*["##"] * 5, *[".."] * 3),
            "a mask that is higher than wide",
        ),
        Case((0 * full, (0.0, 0.0, 2.0, 3.0), 2, 3), rows("...", "..."), "nothing in the mask"),
        Case((full, (0.0, 0.0, 150.0, 140.0), 150, 140), np.ones((150, 140), bool), "large"),
        *drawn_cases(reference, draw, "a random grid, box and image", 8),
    ]
