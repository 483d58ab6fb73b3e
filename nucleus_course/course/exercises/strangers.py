"""Checks of the exercises on leakage between splits and means over sources (notebook 07)."""

from nucleus_course.course.exercises.checks import Case, check, drawn_cases


@check
def check_leaked() -> list[Case]:
    """``leaked(train, validation, group_of) -> set``: validation ids whose group has an image in train."""

    def reference(train, validation, group_of):
        return {v for v in validation if any(group_of[v] == group_of[t] for t in train)}

    def draw(rng):
        ids = [f"image {number}" for number in range(14)]
        group_of = {i: int(g) for i, g in zip(ids, rng.integers(0, 9, len(ids)))}
        return ids[:8], ids[8:], group_of

    groups = {"a": 1, "b": 1, "c": 2, "d": 3, "e": 3, "f": 4}
    return [
        Case((["a", "c"], ["b", "f"], groups), {"b"}, "b is a neighbour of a, f of nothing"),
        Case((["a"], ["c", "d", "e"], groups), set(), "d and e are neighbours, in one split"),
        Case((["a", "d"], ["b", "e"], groups), {"b", "e"}, "both leak"),
        Case((["a", "b"], [], groups), set(), "no validation images"),
        Case(([], ["a", "b"], groups), set(), "no training images"),
        Case(
            (["a", "c", "d"], ["b"], groups),
            {"b"},
            "one validation image: not the training images that are like it",
        ),
        Case((["x"], ["y"], {"x": 0, "y": 0}), {"y"}, "a group may have the number 0"),
        *drawn_cases(reference, draw, "fourteen images in nine groups", 3),
    ]


@check
def check_mean_over_sources() -> list[Case]:
    """``mean_over_sources(scores, source_of) -> float``: the mean of the sources' means."""

    def reference(scores, source_of):
        names = sorted({source_of[i] for i in scores})
        own = [[v for i, v in scores.items() if source_of[i] == name] for name in names]
        return sum(sum(values) / len(values) for values in own) / len(own)

    def draw(rng):
        ids = [f"image {number}" for number in range(12)]
        return (
            {i: float(v) for i, v in zip(ids, rng.uniform(0, 100, len(ids)))},
            {i: "abcd"[min(3, int(n))] for i, n in zip(ids, rng.integers(0, 9, len(ids)))},
        )

    plate = {"p1": "plate", "p2": "plate", "p3": "plate", "s": "slide", "t": "tissue"}
    return [
        Case(
            ({"p1": 90.0, "p2": 90.0, "p3": 90.0, "s": 10.0}, plate),
            50.0,
            "three images of one plate count as much as one slide",
        ),
        Case(({"p1": 60.0, "p2": 80.0}, plate), 70.0, "one source: the mean of its images"),
        Case(({"p1": 80.0, "s": 40.0}, plate), 60.0, "a source without a scored image is no zero"),
        Case(({"p1": 0.0, "p2": 100.0, "s": 0.0}, plate), 25.0, "a score of zero counts"),
        *drawn_cases(reference, draw, "twelve images of up to four sources", 3),
    ]
