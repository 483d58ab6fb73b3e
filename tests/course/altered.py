"""Wrong answers by alteration: the right function with its input or its output changed.

:mod:`mutants` changes a line of the solution. Here the solution stays the same, but one of its
arguments is altered first (mirrored, cut to a square, rounded to integers, ids as bytes), or its answer is
altered afterwards (rounded, sorted, one entry missing), or it is right for some inputs only (not for an
empty one, only for wide images).

An alteration that the check accepts either does not change the answer to the exercise (then
:data:`EQUAL` lists it with the reason) or shows a gap in the check.
"""

import copy
import inspect

import numpy as np


def _square(array):
    side = min(array.shape[:2])
    return array[:side, :side]


SHARE = "it lies between 0 and 1"
ORDER = "the order does not matter"
SCALE = "only the order of the scores matters"
SIDES = "pixels that meet, touch the border or are counted still do after a flip"
EMPTY = "the exercise does not ask about an empty one"
SIGNS = "it is never negative"
EQUAL: dict[tuple[str, str], str] = {
    **{
        (name, f"labels {change}"): SIDES
        for name in ("edge_ids", "touching_pairs", "measure")
        for change in ("mirrored", "upside down", "turned")
    },
    **{
        (name, "nothing for an empty argument"): EMPTY
        for name in (
            "anchor_labels", "bilinear", "box_of", "clip_by_global_norm", "edge_ids", "mask_iou",
            "match", "measure", "paired_interval", "paste_mask", "recall_under_cap", "smooth_l1",
            "top_down", "touching_pairs",
        )
    },
    **{
        (name, f"{part} {change}"): SHARE
        for name, part in (
            ("anchor_labels", "iou"), ("classify_detection", "ious"), ("match", "iou"),
            ("paste_mask", "probs"), ("label_image", "scores"), ("nms", "scores"),
        )
        for change in ("without signs", "at most 1")
    },
    **{
        (name, "the answer at most 1"): SHARE
        for name in (
            "anchor_labels", "average_precision", "box_iou", "mask_iou", "paste_mask",
            "recall_under_cap",
        )
    },
    **{
        (name, f"scores {change}"): SCALE
        for name in ("nms", "label_image")
        for change in ("doubled", "a little larger")
    },
    ("anchor_labels", "iou mirrored"): ORDER,
    ("bilinear", "nothing where all is zero"): "a map without any value has nothing to ask",
    ("box_of", "nothing where all is zero"): EMPTY,
    ("box_of", "the answer in whole numbers"): "the corners are whole numbers",
    ("box_of", "the answer without signs"): SIGNS,
    ("mean_over_sources", "source_of with false values left out"): "every source has a name",
    ("nms", "boxes without signs"): "the boxes lie in the image",
    ("nms", "boxes doubled"): "IoU has no scale",
    ("nms", "boxes a little larger"): "IoU has no scale",
    ("paired_interval", "a without signs"): "scores are not negative",
    ("paired_interval", "draws mirrored"): ORDER,
    ("paired_interval", "draws upside down"): ORDER,
    ("pyramid_level", "the answer without signs"): SIGNS,
    ("recall_under_cap", "counts in whole numbers"): "counts are whole numbers",
    ("recall_under_cap", "counts without signs"): SIGNS,
    ("recall_under_cap", "counts reversed"): ORDER,
    ("recall_under_cap", "counts sorted"): ORDER,
    ("smooth_l1", "difference without signs"): "the loss is even",
}  # fmt: skip

IMAGES = {
    "mirrored": lambda a: a[:, ::-1],
    "upside down": lambda a: a[::-1],
    "turned": lambda a: a.swapaxes(0, 1),
    "cut to a square": _square,
    "without its first row": lambda a: a[1:],
    "without its last row": lambda a: a[:-1],
    "without its first column": lambda a: a[:, 1:],
    "without its last column": lambda a: a[:, :-1],
}
VALUES = {
    "in whole numbers": np.floor,
    "without signs": np.abs,
    "in half precision": lambda a: np.asarray(a).astype(np.float16),
    "at most 1": lambda a: np.minimum(a, 1),
    "reversed": lambda a: a[::-1],
    "sorted": lambda a: np.sort(a, axis=0),
    "doubled": lambda a: 2 * a,
    "a little larger": lambda a: a * 1.001,
}
BYTES = {"as bytes": lambda a: a.astype(np.uint8)}
BOOLS = {"negated": lambda a: ~a, "reversed": lambda a: a[::-1], "all true": np.ones_like}
WHOLE = {
    "ignored (1)": lambda a: 1,
    "ignored (20)": lambda a: 20,
    "larger by 1": lambda a: a + 1,
    "smaller by 1": lambda a: a - 1,
    "at most 100": lambda a: min(a, 100),
}
NUMBERS = {
    "ignored (1)": lambda a: 1.0,
    "ignored (0.5)": lambda a: 0.5,
    "in whole numbers": lambda a: float(np.floor(a)),
    "larger by 1": lambda a: a + 1,
    "a little larger": lambda a: a * 1.001,
    "a little smaller": lambda a: a * 0.999,
}
SEQUENCES = {
    "without its first": lambda a: a[1:],
    "without its last": lambda a: a[:-1],
    "the first only": lambda a: a[:1],
    "the last only": lambda a: a[-1:],
}
BOXES = {
    "y and x swapped": lambda b: (b[1], b[0], b[3], b[2]),
    "in whole numbers": lambda b: tuple(float(np.floor(v)) for v in b),
    "at the origin": lambda b: (0.0, 0.0, b[2] - b[0], b[3] - b[1]),
    "as high as wide": lambda b: (b[0], b[1], b[0] + b[3] - b[1], b[3]),
    "one larger": lambda b: (b[0], b[1], b[2] + 1, b[3] + 1),
}
TABLES = {
    "without its last entry": lambda d: dict(list(d.items())[:-1]),
    "with one value for all": lambda d: dict.fromkeys(d, next(iter(d.values()))),
    "with false values left out": lambda d: {k: v for k, v in d.items() if v},
}
SETS = {
    "with 0": lambda s: s | {0},
    "without the smallest": lambda s: s - {min(s, default=0)},
    "without the largest": lambda s: s - {max(s, default=0)},
    "the smallest only": lambda s: set(sorted(s)[:1]),
    "empty": lambda s: set(),
    "as a count": len,
}
TUPLES = {
    "reversed": lambda t: t[::-1],
    "the first two swapped": lambda t: (t[1], t[0], *t[2:]),
    "the last two swapped": lambda t: (*t[:-2], t[-1], t[-2]),
    "in whole numbers": lambda t: tuple(np.floor(np.asarray(t, float))),
    "without signs": lambda t: tuple(np.abs(np.asarray(t, float))),
    "a little larger": lambda t: tuple(np.asarray(t, float) * 1.001 + 1e-4),
}
ANSWERS = {
    "in whole numbers": lambda v: np.floor(np.asarray(v, float)),
    "with two digits": lambda v: np.round(np.asarray(v, float), 2),
    "at most 1": lambda v: np.minimum(v, 1),
    "subtracted from 1": lambda v: 1 - np.asarray(v, float),
    "a little larger": lambda v: np.asarray(v, float) * 1.001 + 1e-4,
    "its sign changed": lambda v: -np.asarray(v, float),
    "squared": lambda v: np.asarray(v, float) ** 2,
}
MARKS = {
    "at most 1": lambda v: np.minimum(np.asarray(v, int), 1),
    "subtracted from 1": lambda v: 1 - np.asarray(v, int),
    "larger by 1": lambda v: np.asarray(v) + 1,
    "its sign changed": lambda v: -np.asarray(v, int) - (np.asarray(v) == 0),
    "without signs": lambda v: np.abs(np.asarray(v, int)) + (np.asarray(v) == 1),
}
ROWS = {
    "reversed": lambda v: v[::-1],
    "sorted": lambda v: np.sort(v, axis=0),
    "without its last": lambda v: v[:-1],
    "without its first": lambda v: v[1:],
    "its last a zero": lambda v: np.concatenate([v[:-1], 0 * v[-1:]]),
    "flat": lambda v: np.append(np.ravel(v), 0)[: v.size + (v.ndim < 2)],
}
SEVERAL = {
    "the first only": lambda v: [v[0]] + [0 * one for one in v[1:]],
    "reversed": lambda v: v[::-1],
    "in whole numbers": lambda v: [np.floor(one) for one in v],
    "joined": np.concatenate,
    "a little larger": lambda v: [one * 1.001 + 1e-4 for one in v],
    "without signs": lambda v: [np.abs(one) for one in v],
}


def _of_argument(value) -> dict:
    """Alterations that fit an argument."""
    if isinstance(value, np.ndarray) and value.ndim >= 2:
        kind = BOOLS if value.dtype == bool else BYTES if value.dtype.kind == "i" else VALUES
        return IMAGES | {k: v for k, v in kind.items() if k not in ("reversed", "sorted")}
    if isinstance(value, np.ndarray):
        return SEQUENCES | (BOOLS if value.dtype == bool else VALUES)
    if isinstance(value, tuple) and len(value) == 4:
        return BOXES
    if isinstance(value, (list, tuple)):
        return SEQUENCES
    if isinstance(value, dict):
        return TABLES
    return WHOLE if isinstance(value, (int, np.integer)) else NUMBERS


def _of_answer(value) -> dict:
    """Alterations that fit an answer."""
    if isinstance(value, str):
        words = ("matched", "duplicate", "poor boundary", "spurious")
        pairs = [(a, b) for a in words for b in words if a != b]
        return {f"{b!r} for {a!r}": lambda v, a=a, b=b: b if v == a else v for a, b in pairs}
    if isinstance(value, set):
        return SETS
    if isinstance(value, tuple):
        return TUPLES
    if isinstance(value, list):
        return SEVERAL
    rows = ROWS if np.ndim(value) else {}
    return rows | (MARKS if np.asarray(value).dtype.kind in "biu" else ANSWERS)


def _of_arguments(args) -> dict:
    """Kinds of input for which a partly right function returns nothing: {label: whether a value is of that kind}."""
    found, first = {}, args[0]
    if isinstance(first, (np.ndarray, list)):
        found["nothing for an empty argument"] = lambda given: len(given[0]) == 0
        found["nothing for one entry"] = lambda given: len(given[0]) == 1
    place = next((n for n, a in enumerate(args) if isinstance(a, np.ndarray) and a.ndim > 1), None)
    if place is not None:
        found["nothing for more rows than columns"] = lambda given: (
            given[place].shape[-2] > given[place].shape[-1]
        )
        found["nothing for more columns than rows"] = lambda given: (
            given[place].shape[-2] < given[place].shape[-1]
        )
        found["nothing where all is zero"] = lambda given: not np.any(given[place])
    return found


def altered(solution, args) -> list[tuple[str, object]]:
    """(what is altered, function) for a solution; the arguments of one case, ``args``, show the types."""
    found = []

    def add(label, before=None, after=None):
        def answer(*given):
            given = list(given)
            if before is not None:
                given[before[0]] = before[1](given[before[0]])
            value = solution(*given)
            return value if after is None else after(value)

        found.append((label, answer))

    for place, name in enumerate(inspect.signature(solution).parameters):
        for label, change in _of_argument(args[place]).items():
            add(f"{name} {label}", before=(place, change))
    for label, change in _of_answer(solution(*copy.deepcopy(args))).items():
        add(f"the answer {label}", after=change)
    for label, when in _of_arguments(args).items():
        found.append((label, lambda *given, when=when: None if when(given) else solution(*given)))
    return found
