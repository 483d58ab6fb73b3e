"""How far an image is from what a model learned: a number, with a warning at 1 or more.

A network answers every image, even a photograph, and its scores do not show that it has never seen such an image. So
each image in its canonical form is described by 27 statistics (:func:`describe`): its variation at five scales and how
uneven it is, its brightness, its edges, and its shares of upward bulges, downward bulges and saddles. Its novelty is
the distance to the third nearest training image, with each statistic in units of its own spread, divided by a limit.

The limit is set with images of nuclei from other sources: each source (:mod:`~nucleus_course.data.sources`) is compared
with the images of the others alone, and 99% of these distances lie below it. So images from a new laboratory are seldom
flagged, and pictures of other things mostly are. Novelty does not measure how good the outlines are.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import read_json, write_file
from nucleus_course.data.canonical import canonical

FILE = "novelty.json"
SIDE = 256  # pixels: larger images are reduced to it
NEIGHBOUR = 3
SHARE = 0.99  # share of left-out images below the limit
FLOOR = 1e-3  # least variation, as a share of the grey range


def describe(image):
    """27 statistics of a canonical image uint8 (H, W): float32 (27,)."""
    import cv2

    scale = SIDE / max(image.shape)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in image.shape[::-1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    grey = image.astype(np.float32) / 255.0
    levels = [grey] + [cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (1, 2, 4, 8, 16)]
    bands = [fine - coarse for fine, coarse in zip(levels, levels[1:])]
    values = [np.log(band.std() + FLOOR) for band in bands]
    for band in bands[1:]:
        power = (band**2).mean() + FLOOR**2
        values += [
            np.tanh((band**3).mean() / power**1.5 / 3.0),
            np.log((band**4).mean() / power**2 + 0.1),
        ]
    values += np.percentile(grey, (5, 25, 50, 75, 95)).tolist()
    values += _edges(levels[2])
    for level in levels[2:5]:
        values += _shapes(level)
    return np.asarray(values, np.float32)


def _edges(level):
    """How few edges hold most of the gradient, and how far they share a direction: in the whole image, and locally."""
    import cv2

    across, down = (cv2.Sobel(level, cv2.CV_32F, *order) / 8.0 for order in ((1, 0), (0, 1)))
    size = np.hypot(across, down)
    few = np.log(np.percentile(size, 99) + 1e-4) - np.log(np.percentile(size, 50) + FLOOR)
    products = across**2, down**2, across * down
    xx, yy, xy = (float(p.mean()) for p in products)
    one_way = np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-9)
    xx, yy, xy = (cv2.GaussianBlur(p, (0, 0), 3.0) for p in products)
    return [few, one_way, float(np.hypot(xx - yy, 2 * xy).sum() / ((xx + yy).sum() + 1e-9))]


def _shapes(level):
    """Shares of upward bulges and of saddles in the total curvature."""
    import cv2

    across, down, mixed = (
        cv2.Sobel(level, cv2.CV_32F, *order) for order in ((2, 0), (0, 2), (1, 1))
    )
    curvature = across * down - mixed * mixed
    weight = np.sqrt(np.abs(curvature))
    total = float(weight.sum()) + 1e-9
    return [
        float(weight[(curvature > 0) & (across + down < 0)].sum()) / total,
        float(weight[curvature < 0].sum()) / total,
    ]


@dataclass(frozen=True)
class Novelty:
    """The training images' statistics, and the limit.

    Attributes:
        known: (N, 27) float32, :func:`describe` of the training images.
        limit: the distance that gives a novelty of 1.
    """

    known: np.ndarray
    limit: float

    def __call__(self, image):
        """The novelty of a canonical image uint8 (H, W): 1 or more is flagged; infinite without contrast."""
        if image.max(initial=0) == image.min(initial=255):
            return float("inf")
        return float(distances(self.known, describe(image)[None])[0]) / self.limit

    @classmethod
    def fit(cls, dataset, sources, progress=None):
        """From the images of a :class:`~nucleus_course.data.Dataset` and {id: source}.

        Raises:
            UserError: fewer than two sources, so that the limit cannot be set.
        """
        names = np.array([sources[image_id] for image_id in dataset.ids])
        if len(set(names.tolist())) < 2:
            raise UserError(
                "novelty needs images from at least two sources, to compare one with the others"
            )
        known = np.stack(
            [describe(canonical(record.raw).image) for record in (progress or iter)(dataset)]
        )
        left = [
            distances(known[names != name], known[names == name])
            for name in sorted(set(names.tolist()))
        ]
        return cls(known, float(np.quantile(np.concatenate(left), SHARE)))

    def save(self, folder):
        """Write ``novelty.json`` into a model folder."""
        known = [[round(float(v), 4) for v in row] for row in self.known]
        text = json.dumps({"limit": self.limit, "known": known}, separators=(",", ":"))
        write_file(Path(folder) / FILE, text.replace("],[", "],\n["))

    @classmethod
    def load(cls, folder):
        """What :meth:`save` wrote, or None if the folder has none.

        Raises:
            UserError: the file is damaged.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        remedy = "run nucleus-course novelty again, or delete the file"
        values = read_json(path, remedy)
        try:
            known = np.asarray(values["known"], np.float32)
            if known.ndim != 2 or len(known) < NEIGHBOUR or not values["limit"] > 0:
                raise ValueError
            return cls(known, float(values["limit"]))
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is damaged: {remedy}") from None


@dataclass(frozen=True)
class Measured:
    """A known value in place of a :class:`Novelty`."""

    value: float

    def __call__(self, image):
        """The value, for any image."""
        return self.value


def distances(known, rows):
    """Each row's distance to the third nearest of ``known``, (M,): root mean square over the statistics, each in units
    of its spread in ``known`` plus 0.001."""
    spread = known.std(axis=0) + FLOOR
    gaps = np.sqrt((((rows[:, None] - known[None]) / spread) ** 2).mean(axis=2))
    return np.sort(gaps, axis=1)[:, min(NEIGHBOUR, len(known)) - 1]
