"""Checks of the exercises on the pyramid and on targets (notebook 02)."""

import numpy as np

from nucleus_course.course.exercises.checks import Case, check, drawn_cases


@check
def check_top_down() -> list[Case]:
    """``top_down(coarse, fine, weight, bias)``: double ``coarse``, add the 1x1 convolution of ``fine``."""

    def reference(coarse, fine, weight, bias):
        out = np.zeros((*fine.shape[:2], len(bias)))
        for r, c, k in np.ndindex(out.shape):
            out[r, c, k] = coarse[r // 2, c // 2, k] + bias[k] + (fine[r, c] * weight[:, k]).sum()
        return out

    def draw(rng):
        shapes = (2, 3, 4), (4, 6, 5), (5, 4), (4,)
        return tuple(rng.uniform(-1, 1, shape) for shape in shapes)

    ramp = np.arange(4.0).reshape(2, 2, 1)
    nothing, one = np.zeros((4, 4, 1)), np.ones((1, 1))
    fine = np.arange(16.0).reshape(4, 4, 1)
    return [
        Case(
            (ramp, nothing, one, np.zeros(1)),
            ramp.repeat(2, axis=0).repeat(2, axis=1),
            "each cell of the coarse map becomes 2 x 2 equal cells",
        ),
        Case((0 * ramp, fine, one, np.zeros(1)), fine, "the fine map passes through"),
        Case((0 * ramp, nothing, one, np.array([0.5])), nothing + 0.5, "the bias is added once"),
        Case((0 * ramp, fine, 3 * one, np.ones(1)), 3 * fine + 1, "weight, then bias"),
        Case(
            (np.ones((1, 1, 1)), fine[:2, :2], one, np.array([2.0])),
            fine[:2, :2] + 3,
            "a coarse map of one cell",
        ),
        *drawn_cases(reference, draw, "four channels from five, on a map that is not square"),
    ]


@check
def check_anchor_labels() -> list[Case]:
    """``anchor_labels(iou, positive, negative)``: (A,) of 1, 0 or -1 (Ren et al. 2015, section 3.1.2)."""

    def reference(iou, positive, negative):
        out = []
        for row in iou:
            best = max(row)
            is_best = any(
                row[nucleus] > 0 and row[nucleus] == max(other[nucleus] for other in iou)
                for nucleus in range(iou.shape[1])
            )
            out.append(1 if best >= positive or is_best else 0 if best < negative else -1)
        return np.array(out)

    def draw(rng):
        iou = np.round(rng.uniform(0, 1, (9, 3)) ** 2, 1)
        return iou, 0.7, 0.3

    def case(rows, expected, about, positive=0.7, negative=0.3):
        return Case((np.array(rows), positive, negative), np.array(expected), about)

    return [
        case([[0.9], [0.5], [0.1]], [1, -1, 0], "one of each kind"),
        case([[0.9], [0.7], [0.3]], [1, 1, -1], "0.7 itself is positive, 0.3 itself is neither"),
        case([[0.4], [0.2]], [1, 0], "the best anchor of a nucleus is positive, however low"),
        case([[0.2], [0.1]], [1, 0], "even below the limit for negatives"),
        case(
            [[0.8, 0.0], [0.75, 0.2], [0.5, 0.1]],
            [1, 1, -1],
            "two anchors on one nucleus, and one of them is also the best of another",
        ),
        case(
            [[0.9, 0.1], [0.5, 0.4], [0.2, 0.4]],
            [1, 1, 1],
            "two anchors share the best IoU of the second nucleus",
        ),
        case([[0.0, 0.8], [0.0, 0.1]], [1, 0], "a nucleus that no anchor touches"),
        case([[0.0], [0.0]], [0, 0], "no anchor touches the only nucleus"),
        case([[0.9], [0.69999], [0.29999]], [1, -1, 0], "just below each limit"),
        case([[0.2, 0.1, 0.0]], [1], "one anchor: the best that there is"),
        case([[0.8, 0.1, 0.0], [0.4, 0.05, 0.0]], [1, -1], "more nuclei than anchors"),
        case([[0.6], [0.5], [0.4]], [1, 1, 0], "other limits", positive=0.5, negative=0.45),
        *drawn_cases(reference, draw, "nine anchors, three nuclei", 8),
    ]
