"""Checks of the exercises on images, masks and measurements (notebooks 00, 01 and 06)."""

import numpy as np

from nucleus_course.course.exercises.checks import Case, check, drawn_cases


def picture(*rows: str) -> np.ndarray:
    """A small label image from text: ``.`` is background, digits are nucleus ids; (H, W) int32."""
    return np.array(
        [[0 if cell == "." else int(cell) for cell in row] for row in rows], dtype=np.int32
    )


def random_labels(rng: np.random.Generator, ids=(1, 2, 3, 5, 12, 300)) -> np.ndarray:
    """A label image (5 to 7, 6 to 9) int32 of rectangles with the given ids, painted over each other."""
    labels = np.zeros((rng.integers(5, 8), rng.integers(6, 10)), np.int32)
    for number in rng.permutation(ids):
        r, c = rng.integers(0, labels.shape[0]), rng.integers(0, labels.shape[1])
        labels[r : r + rng.integers(1, 4), c : c + rng.integers(1, 4)] = number
    return labels


@check
def check_box_of() -> list[Case]:
    """``box_of(mask) -> (y1, x1, y2, x2)``: the half-open bounding box of a (H, W) bool mask."""

    def reference(mask):
        rows, columns = np.nonzero(mask)
        return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1

    single = picture("......", "...1..", "......") > 0
    wide = picture(".......", ".11111.", "..111..", ".......") > 0
    parts = picture("1.....", "......", "......", "....11") > 0
    leaning = picture("...1...", "..111..", ".....1.", "1......") > 0
    return [
        Case((single,), (1, 3, 2, 4), "a single pixel: its box is 1 x 1"),
        Case((wide,), (1, 1, 3, 6), "a wide nucleus: rows first, then columns"),
        Case((parts,), (0, 0, 4, 6), "two parts of one nucleus that touch the image's edges"),
        Case((leaning,), (0, 0, 4, 6), "the first row holds neither the left end nor the right"),
        Case((picture("..11.") > 0,), (0, 2, 1, 4), "an image of one row"),
        *drawn_cases(reference, lambda rng: (random_labels(rng) > 2,), "a random mask"),
    ]


@check
def check_touching_pairs() -> list[Case]:
    """``touching_pairs(labels) -> set`` of (i, j), i < j, for nuclei that share a pixel edge."""

    def reference(labels):
        pairs = set()
        for (r, c), one in np.ndenumerate(labels):
            for other in [*labels[r, c + 1 : c + 2], *labels[r + 1 : r + 2, c]]:
                if one and other and one != other:
                    pairs.add((int(min(one, other)), int(max(one, other))))
        return pairs

    return [
        Case((picture("1122", "1122"),), {(1, 2)}, "two nuclei side by side"),
        Case(
            (picture("11..", "33..", "...2"),),
            {(1, 3)},
            "one above the other; the background is not a nucleus",
        ),
        Case((picture("22..", "22..", "..11"),), set(), "touching at a corner does not count"),
        Case((picture("..22", "..22", "11.."),), set(), "nor at the other corner"),
        Case(
            (picture("3311", "3311", "..22", "1122"),),
            {(1, 2), (1, 3)},
            "the smaller id comes first, each pair once",
        ),
        Case((picture("1...2", "1...2"),), set(), "opposite edges of the image do not touch"),
        Case((picture("1.2", "1.2"),), set(), "one pixel of background between them"),
        Case((picture("....", "...."),), set(), "an image without nuclei"),
        Case((picture("221.3"),), {(1, 2)}, "an image of one row"),
        *drawn_cases(reference, lambda rng: (random_labels(rng),), "a random image"),
    ]


@check
def check_flip_boxes() -> list[Case]:
    """``flip_boxes(boxes, width)``: (N, 4) boxes after the image is mirrored left to right."""

    def reference(boxes, width):
        return np.stack(
            [boxes[:, 0], width - boxes[:, 3], boxes[:, 2], width - boxes[:, 1]], axis=1
        )

    def draw(rng):
        corner = rng.uniform(-8, 20, (6, 2))
        return np.concatenate([corner, corner + rng.uniform(1, 9, (6, 2))], 1), rng.integers(30, 90)

    one = np.array([[0, 0, 1, 1]], np.float32)
    boxes = np.array([[2, 1, 5, 4], [0, 6, 3, 10]], np.float32)
    return [
        Case((one, 10), np.array([[0, 9, 1, 10]]), "the first pixel of a row becomes the last"),
        Case((one, 640), np.array([[0, 639, 1, 640]]), "the same in a wider image"),
        Case(
            (boxes, 10),
            np.array([[2, 6, 5, 9], [0, 0, 3, 4]]),
            "x1 must stay the smaller of the two",
        ),
        Case((np.zeros((0, 4), np.float32), 10), np.zeros((0, 4)), "no boxes at all"),
        *drawn_cases(reference, draw, "six boxes between pixels, some over the edge", 2),
    ]


@check
def check_recall_under_cap() -> list[Case]:
    """``recall_under_cap(counts, cap)``: the best recall over all nuclei when an image may keep ``cap``."""

    def reference(counts, cap):
        return sum(min(int(n), cap) for n in counts) / sum(int(n) for n in counts)

    return [
        Case((np.array([10, 20]), 100), 1.0, "no image reaches the cap"),
        Case(
            (np.array([50, 150]), 100),
            0.75,
            "the cap binds in one image; recall is over all nuclei together",
        ),
        Case((np.array([375, 5, 20]), 100), 0.3125, "one crowded image outweighs two sparse ones"),
        Case((np.array([0, 40]), 30), 0.75, "an image without nuclei adds nothing"),
        Case((np.array([100, 100]), 100), 1.0, "exactly at the cap nothing is lost"),
        Case((np.array([101]), 100), 100 / 101, "one above the cap"),
        *drawn_cases(
            reference,
            lambda rng: (rng.integers(1, 300, 9), int(rng.integers(20, 200))),
            "nine random counts",
        ),
    ]


@check
def check_measure() -> list[Case]:
    """``measure(labels, micrometres_per_pixel) -> (N, 3)``: id, area in um2, equivalent diameter in um."""

    def reference(labels, scale):
        ids = sorted(set(labels.ravel().tolist()) - {0})
        areas = [float((labels == i).sum()) * scale**2 for i in ids]
        return np.array([(i, a, np.sqrt(4 * a / np.pi)) for i, a in zip(ids, areas)]).reshape(-1, 3)

    def case(labels, scale, about):
        return Case((labels, scale), reference(labels, scale), about)

    labels = picture("11...", "11.3.", "...3.")
    return [
        case(labels, 1.0, "ids need not be consecutive; the background is not measured"),
        case(labels, 0.5, "half a micrometre a pixel: an area scales with the square"),
        case(picture("112", "112"), 1.0, "no background at all: the first id is a nucleus too"),
        case(picture("2..2", "...."), 2.0, "two parts of one nucleus are one row"),
        case(np.zeros((3, 3), np.int32), 0.5, "an image without nuclei"),
        case(picture("1.22"), 0.5, "an image of one row"),
        case(picture("1.22").T, 0.5, "an image of one column"),
        *drawn_cases(
            reference, lambda rng: (random_labels(rng), rng.uniform(0.1, 0.9)), "a random image"
        ),
    ]


@check
def check_density() -> list[Case]:
    """``density(count, height, width, micrometres_per_pixel)``: nuclei per square millimetre."""

    def reference(count, height, width, scale):
        return count / (height * scale * width * scale * 1e-6)

    return [
        Case((100, 1000, 1000, 1.0), 100.0, "1000 x 1000 pixels of 1 um are one mm2"),
        Case((30, 500, 1000, 0.5), 240.0, "500 x 1000 pixels of 0.5 um are 1/8 mm2"),
        Case((0, 256, 256, 0.25), 0.0, "no nuclei"),
        *drawn_cases(
            reference,
            lambda rng: (*rng.integers(20, 2000, 3).tolist(), rng.uniform(0.1, 2)),
            "a random field",
        ),
    ]
