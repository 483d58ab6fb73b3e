"""Checks of the exercises on losses and training (notebooks 02 and 03)."""

import numpy as np

from nucleus_course.course.exercises.checks import Case, check, drawn_cases


@check
def check_smooth_l1() -> list[Case]:
    """``smooth_l1(difference)`` elementwise: 0.5 d^2 below 1, |d| - 0.5 above (Girshick 2015)."""
    return [
        Case(
            (np.array([0.0, 0.5, 1.0]),),
            np.array([0.0, 0.125, 0.5]),
            "small differences: a parabola",
        ),
        Case((np.array([2.0, 10.0]),), np.array([1.5, 9.5]), "large differences: a straight line"),
        Case((np.array([-0.5, -3.0]),), np.array([0.125, 2.5]), "the sign does not matter"),
        Case((np.array([[0.9], [1.2]]),), np.array([[0.405], [0.7]]), "around the limit of 1"),
        Case((np.array([[-0.99, -1.01]]),), np.array([[0.49005, 0.51]]), "around -1"),
        Case((np.array([4.0, -0.2, 2.0]),), np.array([3.5, 0.02, 1.5]), "in their own order"),
    ]


@check
def check_clip_by_global_norm() -> list[Case]:
    """``clip_by_global_norm(gradients, limit)``: a list of arrays, all scaled by the same factor."""

    def reference(gradients, limit):
        norm = np.linalg.norm(np.concatenate([g.ravel() for g in gradients]))
        return [g * min(1.0, limit / norm) for g in gradients]

    long = [np.array([3.0, 4.0]), np.array([[12.0]])]
    return [
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
        Case(
            ([np.array([0.3]), np.array([0.4])], 0.1),
            [np.array([0.06]), np.array([0.08])],
            "a limit below one",
        ),
        *drawn_cases(
            reference,
            lambda rng: ([rng.normal(0, 2, n) for n in ((3,), (2, 4), (1,))], 5.0),
            "three random layers",
        ),
        *drawn_cases(
            reference,
            lambda rng: ([rng.normal(0, 0.3, n) for n in ((3,), (2, 4), (1,))], 2.0),
            "three short ones",
        ),
    ]


@check
def check_warmup_cosine() -> list[Case]:
    """``warmup_cosine(step, total, warmup, peak)``: linear rise over ``warmup`` steps, then half a cosine to 0."""

    def reference(step, total, warmup, peak):
        if step < warmup:
            return peak * step / warmup
        return peak * np.cos(0.5 * np.pi * (step - warmup) / (total - warmup)) ** 2

    def draw(rng):
        warmup = int(rng.integers(5, 40))
        return int(rng.integers(0, 200)), 200, warmup, float(rng.uniform(0.001, 3))

    return [
        Case((0, 100, 20, 1.0), 0.0, "the first step"),
        Case((10, 100, 20, 1.0), 0.5, "half way through the warm-up"),
        Case((20, 100, 20, 0.01), 0.01, "the peak"),
        Case((60, 100, 20, 1.0), 0.5, "half way down: the cosine begins where the warm-up ends"),
        Case((40, 100, 20, 1.0), 0.5 * (1 + np.cos(np.pi / 4)), "a quarter of the way down"),
        Case((100, 100, 20, 1.0), 0.0, "the end"),
        Case((5, 100, 20, 0.4), 0.1, "a quarter of the warm-up, to another peak"),
        Case((60, 100, 20, 0.4), 0.2, "half way down from another peak"),
        Case((0, 100, 0, 0.3), 0.3, "no warm-up: the peak comes first"),
        Case((150, 1000, 300, 1.0), 0.5, "a long warm-up"),
        Case((30, 90, 30, 2.0), 2.0, "the step at which the warm-up ends has the peak"),
        *drawn_cases(reference, draw, "a random schedule", 6),
    ]
