"""Images of any size, and with any number of nuclei: tile by tile, and merged as if untiled.

The whole image is normalised first, so every tile has the image's statistics. Each tile has a core, and
the cores partition the image. A tile also sees a margin around its core, so that a nucleus whose centre
lies in the core is seen whole. A tile with more nuclei than the network's fixed number of proposals can
cover is divided into quarters and processed again.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.progress import track
from nucleus_course.data.preprocess import see
from nucleus_course.data.rescaled import resized
from nucleus_course.geometry.boxes import iou_matrix
from nucleus_course.prediction import flips, scale
from nucleus_course.prediction.detections import Detections
from nucleus_course.prediction.pipeline import assemble, prepare_picture, raw_boxes

CORE = 512  # side of a tile's core, network pixels
MARGIN = 64  # seen around a core, network pixels; nuclei up to twice this size are seen whole
UNTILED = 768  # images up to this side are not tiled, network pixels
SMALLEST = 96  # crowded tiles with a smaller core are not divided again
CROWDED = 200  # with more sure detections in a tile, proposals may have run out
SURE = 0.5  # class probability of a sure detection
SHARED = 8  # pixels around a core in which its neighbour's detections count as well
INSIDE = 0.6  # a cut detection with this share inside another one is part of it
SHOWN = 12  # this many tiles or more have a progress bar


@dataclass(frozen=True)
class Tile:
    """One piece of an image: its core (top, left, bottom, right), image pixels."""

    core: tuple

    def seen(self, shape, margin):
        """The core with its margin, cut to the image: (top, left, bottom, right)."""
        top, left, bottom, right = self.core
        low = max(0, top - margin), max(0, left - margin)
        return *low, min(shape[0], bottom + margin), min(shape[1], right + margin)

    def quarters(self):
        """The core divided once along each side."""
        top, left, bottom, right = self.core
        row, column = (top + bottom) // 2, (left + right) // 2
        rows, columns = ((top, row), (row, bottom)), ((left, column), (column, right))
        return [Tile((a, c, b, d)) for a, b in rows for c, d in columns]


def grid(shape, core):
    """Tiles of an image of ``shape``, their cores nearly equal and at most ``core`` pixels a side."""
    edges = [np.linspace(0, side, math.ceil(side / core) + 1).astype(int) for side in shape]
    rows, columns = (list(zip(e[:-1].tolist(), e[1:].tolist())) for e in edges)
    return [Tile((a, c, b, d)) for a, b in rows for c, d in columns]


def predict_image(
    model,
    image,
    thresholds,
    *,
    max_detections=None,
    score_threshold=None,
    tile=None,
    overlap=None,
    progress=None,
    polarity="auto",
    input=None,
    diameter="auto",
):
    """Nuclei in one image of any size: the pipeline, tile by tile where the image is large or crowded.

    Arguments as :meth:`~nucleus_course.prediction.segmenter.Segmenter.predict`.
    """
    seen = see(image, model.config, polarity, input)

    how = thresholds, score_threshold, tile, overlap, progress

    def look(factor):
        return _look(model, seen.pixels, *how, factor)

    found = scale.look_at_scale(look, diameter, thresholds)
    found.canonical, found.learned = seen.canonical, model.novelty
    if max_detections is not None:
        found = found.take(slice(0, max_detections))
    return found if score_threshold is None else found.confident(score_threshold)


def _look(model, picture, thresholds, score_threshold, tile, overlap, progress, factor):
    """Detections of a normalised picture uint8 (H, W, 3), each tile resized by ``factor``."""
    core, margin = tile_sizes(model.config, tile, overlap, factor)
    shape = picture.shape[:2]
    whole = max(shape) * model.config.upsample * factor <= UNTILED if tile is None else core is None
    tiles = [Tile((0, 0, *shape))] if whole else grid(shape, core)

    def view(top, left, bottom, right):
        return picture[top:bottom, left:right]

    look = Look(model, shape, view, thresholds, score_threshold, margin, factor)
    show = len(tiles) >= SHOWN if progress is None else progress
    for piece in track(tiles, "detecting", show=show):
        look.at(piece)
    look.warn()
    return look.merged()


def tile_sizes(config, tile=None, overlap=None, factor=1.0):
    """Side of a core and margin, image pixels, from a user's options.

    Args:
        tile: side of what a tile sees, image pixels; None is automatic, 0 is no tiles.
        overlap: pixels that neighbouring tiles share; None is automatic.
        factor: by how much the image is enlarged.

    Returns:
        (core, margin); a core of None for no tiles.

    Raises:
        UserError: tiles too small for their overlap.
    """
    zoom = config.upsample * factor
    margin = max(1, int(MARGIN / zoom)) if overlap is None else -(-int(overlap) // 2)
    if tile is None:
        return max(1, int(CORE / zoom)), margin
    if tile == 0:
        return None, margin
    core = int(tile) - 2 * margin
    if margin < 0 or core < 32:
        raise UserError(
            f"tile={tile}, overlap={2 * margin}: a tile must be at least 32 pixels larger than its overlap"
        )
    return core, margin


class Look:
    """Detections gathered over the tiles of one image, in its pixels.

    Args:
        model: :class:`~nucleus_course.prediction.segmenter.MaskRCNN`.
        shape: (H, W) of the image.
        view: a function (top, left, bottom, right) -> uint8 (h, w, 3), that part of the image, normalised.
        thresholds: :class:`~nucleus_course.config.Thresholds`.
        score_threshold: detections below it are not needed; or None.
        margin: what a tile sees around its core, pixels.
        factor: by how much the image is enlarged for the network.
    """

    def __init__(self, model, shape, view, thresholds, score_threshold, margin, factor=1.0):
        self.model, self.shape, self.view, self.thresholds = model, shape, view, thresholds
        self.config, self.margin, self.factor = model.config, margin, factor
        # Without a rescorer the score is at most the class probability: boxes below need no mask.
        ready = score_threshold is not None and model.rescorer is None
        self.least = score_threshold if ready else 0.0
        self.crowded, self.parts = 0, []

    def at(self, tile):
        """Detect in a tile, or in its quarters if it is crowded."""
        box = tile.seen(self.shape, self.margin)
        view = self.view(*box)
        picture = resized(view, self.factor)
        views = flips.VIEWS[: self.thresholds.flips]
        prepared = prepare_picture(picture, self.config, views)
        pyramid, boxes, scores = raw_boxes(self.model, prepared, self.thresholds, least=self.least)
        if (scores >= SURE).sum() > CROWDED:
            sides = (tile.core[2] - tile.core[0], tile.core[3] - tile.core[1])
            if min(sides) >= 2 * SMALLEST / (self.config.upsample * self.factor):
                del pyramid  # not needed while the quarters are processed
                for quarter in tile.quarters():
                    self.at(quarter)
                return
            self.crowded += 1
        found = boxes, scores, self.model.engine.masks(pyramid, boxes, prepared)
        size = picture.shape[:2]
        found = assemble(self.config, size, *found, self.thresholds, self.model.rescorer)
        self.parts.append((tile, box, scale.at_size(found, view.shape[:2])))

    def warn(self):
        """Warn if nuclei may be missing."""
        if self.crowded:
            warnings.warn(
                f"{self.crowded} regions hold more than {CROWDED} nuclei on less than {2 * SMALLEST} pixels: "
                "some may be missing; enlarge the image first (diameter)",
                stacklevel=4,
            )

    def merged(self):
        """All tiles' detections as one :class:`Detections`."""
        if len(self.parts) == 1 and self.parts[0][1] == (0, 0, *self.shape):
            return self.parts[0][2]
        gathered = [near_core(*part, self.shape, self.factor) for part in self.parts]
        owners = np.repeat(np.arange(len(gathered)), [len(one[0]) for one in gathered])
        own, cut, boxes, scores, probs, spans = map(np.concatenate, zip(*gathered))
        keep = merge(boxes, scores, owners, own, cut, self.thresholds.nms_iou)
        keep = keep[np.argsort(-scores[keep], kind="stable")]
        best = boxes[keep], scores[keep], probs[keep], spans[keep]
        return Detections(*best, *self.shape, self.parts[0][2].thresholds)


def near_core(tile, box, found, shape, factor=1.0):
    """A tile's detections with their centre in or near its core, in the image's pixels.

    Those farther out are left to the neighbour, which sees more of them.

    Returns:
        own, cut (N,) bool as :func:`merge` takes them, boxes (N, 4), scores (N,), mask_probs (N, S, S),
        mask_boxes (N, 4).
    """
    offset = np.tile(np.float32(box[:2]), 2)
    boxes, spans = found.boxes + offset, found.mask_boxes + offset
    centre = 0.5 * (boxes[:, :2] + boxes[:, 2:])
    beyond = np.maximum(tile.core[:2] - centre, centre - tile.core[2:]).max(axis=1, initial=-np.inf)
    near = beyond <= SHARED / factor
    cut = _cut(boxes[near], box, shape, 1.5 / min(1.0, factor))
    scores, probs = found.scores[near], found.mask_probs[near]
    return beyond[near] <= 0, cut, boxes[near], scores, probs, spans[near]


def _cut(boxes, seen, shape, reach):
    """Which boxes (N, 4) touch an edge of what the tile sees that is not the image's edge: (N,) bool."""
    inner = [seen[0] > 0, seen[1] > 0, seen[2] < shape[0], seen[3] < shape[1]]
    gaps = np.abs(boxes - np.float32(seen))
    return ((gaps < reach) & np.array(inner)).any(axis=1)


def merge(boxes, scores, owners, own, cut, nms_iou):
    """Which detections of overlapping tiles are kept.

    If two tiles detect the same nucleus, the one with its centre in the core is kept. A detection that a
    tile's edge cuts is kept only if no whole detection covers it.

    Args:
        boxes: (N, 4), pixels of the whole image; scores: (N,).
        owners: (N,) int, the tile of each; own: (N,) bool, whether its centre is in its tile's core.
        cut: (N,) bool, whether its tile's edge cuts it.
        nms_iou: box IoU above which two tiles' detections are one nucleus.

    Returns:
        Indices that are kept, (K,) int.
    """
    cells, kept, size = {}, [], 128.0
    for index in np.lexsort((-scores, ~own, cut)):
        low = (boxes[index, :2] // size).astype(int)
        high = (boxes[index, 2:] // size).astype(int)
        places = [(r, c) for r in range(low[0], high[0] + 1) for c in range(low[1], high[1] + 1)]
        near = [j for place in places for j in cells.get(place, ()) if owners[j] != owners[index]]
        if near:
            others = boxes[near]
            if iou_matrix(boxes[index][None], others).max() > nms_iou:
                continue
            if cut[index] and _covered(boxes[index], others).max() >= INSIDE:
                continue
        kept.append(index)
        for place in places:
            cells.setdefault(place, []).append(index)
    return np.array(kept, int)


def _covered(box, others):
    """The share of a box (4,) that lies in each of ``others`` (M, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=1)
    return shared / max(float(np.prod(box[2:] - box[:2])), 1e-6)
