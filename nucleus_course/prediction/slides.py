"""Slides: images too large for memory, processed band by band, measured and written piece by piece.

    plan = plan_slide(model, plane, ...)          normalisation, scale and tiles
    for number in range(len(plan.bands())): detect_band(...)    the detections of a row of tiles, to a file
    nuclei = gather(...)                          all bands, merged like the tiles of any image
    nuclei.write_labels(...), nuclei.measure(...) from the masks' runs, one window at a time

Memory holds one tile's picture, one band's detections, and every nucleus's box and runs (about 0.5 kB), but
no mask of the image's size. Bands that are done are skipped after an interruption.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import atomic_write, write_file
from nucleus_course._util.progress import track
from nucleus_course.config import Thresholds
from nucleus_course.data.canonical import Canonical, canonical_piece
from nucleus_course.data.masks import looks_like_labels
from nucleus_course.data.novelty import Measured
from nucleus_course.data.slides import BLOCK, BLOCKS, Plane, canonical_of, lazy_plane, sample_blocks
from nucleus_course.geometry.masks import paste, ranges
from nucleus_course.geometry.rle import Runs, runs_from_pixels
from nucleus_course.prediction import scale
from nucleus_course.prediction.rescorer import outline_quality
from nucleus_course.prediction.slide_nuclei import Nuclei
from nucleus_course.prediction.tiles import SHOWN, Look, Tile, grid, merge, near_core, tile_sizes

LOOKS = 6  # squares in which the nuclei's size is measured
PIECEWISE = (
    f"processed piece by piece: range and polarity are those of {BLOCKS} squares of {BLOCK} pixels, "
    "and detections below the score of {:.2f} are not kept"
)
FORMAT = 2  # of the bands' files
MOST = 2**32 - 1  # pixels; COCO's run lengths are 32-bit


@dataclass(frozen=True)
class Plan:
    """How a slide is processed, as plain values for other processes.

    Attributes:
        height, width: its size, pixels.
        seen: the fields of :class:`~nucleus_course.data.canonical.Canonical` without the image.
        novelty: the median over the sample, or None.
        factor: by how much it is enlarged for the network.
        core, margin: of the tiles, pixels.
        score_threshold: detections below it are left out.
    """

    height: int
    width: int
    seen: dict[str, Any]
    novelty: float | None
    factor: float
    core: int
    margin: int
    score_threshold: float

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height, self.width

    @property
    def canonical(self) -> Canonical:
        """How the slide is normalised; its image is a single meaningless pixel."""
        return Canonical(np.zeros((1, 1), np.uint8), **self.seen)

    def bands(self) -> list[list[Tile]]:
        """The tiles, row by row."""
        rows: dict[int, list[Tile]] = {}
        for tile in grid(self.shape, self.core):
            rows.setdefault(tile.core[0], []).append(tile)
        return list(rows.values())


def plan_slide(
    model: Any, plane: Plane, thresholds: Thresholds, score_threshold: float, how: dict[str, Any]
) -> Plan:
    """Decide, from a sample of a slide, how it is normalised and at what scale.

    Args:
        model: :class:`~nucleus_course.prediction.segmenter.MaskRCNN` with the canonical input.
        plane: the slide.
        thresholds: the operating point, with the number of flips.
        score_threshold: the least score that counts.
        how: options of :meth:`~nucleus_course.prediction.segmenter.Segmenter.predict`: polarity, diameter,
            tile and overlap are used.

    Raises:
        UserError: too large, a label image, or invalid options.
    """
    height, width = plane.shape
    if height * width > MOST:
        raise UserError(f"{height} x {width} pixels: choose a smaller level of the pyramid")
    blocks = sample_blocks(plane)
    ranks = [np.unique(b, return_inverse=True)[1].reshape(b.shape) for b in blocks if b.ndim == 2]
    if 2 * sum(looks_like_labels(rank) for rank in ranks) > len(blocks):
        raise UserError("a label image (numbers of nuclei), not a picture")
    seen = canonical_of(blocks, how.get("polarity") or "auto")
    pictures = [canonical_piece(block, seen) for block in blocks]
    novelty = None
    if model.novelty is not None:
        novelty = float(np.median([model.novelty(picture) for picture in pictures]))
    factor = _factor(model, thresholds, pictures, how.get("diameter", "auto"))
    core, margin = tile_sizes(model.config, how.get("tile"), how.get("overlap"), factor)
    known = {f.name: getattr(seen, f.name) for f in dataclasses.fields(seen) if f.name != "image"}
    core = core or max(plane.shape)
    return Plan(height, width, known, novelty, factor, core, margin, score_threshold)


def _factor(model, thresholds, pictures, diameter):
    """The scale that suits the squares of the sample with most contrast."""
    diameter = scale.check_diameter(diameter)
    if isinstance(diameter, float):
        return scale.factor_for(diameter, thresholds)
    if diameter is None or not thresholds.diameters:
        return 1.0
    busy = sorted(pictures, key=lambda picture: -float(picture.std()))[:LOOKS]

    def look(factor):
        found = []
        for picture in busy:
            shape = picture.shape
            rgb = np.broadcast_to(picture[..., None], (*shape, 3))
            one = Look(
                model, shape, lambda t, x, b, r, rgb=rgb: rgb[t:b, x:r], thresholds, None, 0, factor
            )
            one.at(Tile((0, 0, *shape)))
            found.append(one.merged().confident())
        return Sizes(*(np.concatenate([getattr(f, n) for f in found]) for n in ("areas", "scores")))

    return scale.settle(look, thresholds).scale


@dataclass
class Sizes:
    """Areas (image pixels) and scores of confident detections at a scale: what :func:`scale.settle` uses of Detections."""

    areas: np.ndarray
    scores: np.ndarray
    scale: float = 1.0

    def confident(self):
        """Itself: all of them are confident."""
        return self


class Parts:
    """The files of the bands of one slide, so that an interrupted run can continue.

    Args:
        folder: for this slide alone; created if missing.
        plan: bands made with another plan, or another ``fingerprint`` of the image, are removed.
    """

    def __init__(self, folder: Path, plan: Plan, fingerprint: str, fresh: bool = False) -> None:
        self.folder, self.plan = folder, plan
        about = {**dataclasses.asdict(plan), "fingerprint": fingerprint, "format": FORMAT}
        text = json.dumps(about, sort_keys=True)
        file = folder / "plan.json"
        if fresh or not file.is_file() or file.read_text(encoding="utf-8") != text:
            for path in folder.glob("band-*.npz"):
                path.unlink()
            write_file(file, text)

    def path(self, number: int) -> Path:
        """The file of a band."""
        return self.folder / f"band-{number:05d}.npz"

    def missing(self) -> list[int]:
        """The numbers of the bands that are not done."""
        return [n for n in range(len(self.plan.bands())) if not self.path(n).is_file()]

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # it holds other slides
            self.folder.parent.rmdir()


def detect_band(
    model: Any,
    plane: Plane,
    thresholds: Thresholds,
    parts: Parts,
    number: int,
    advance: Callable[[], None] = lambda: None,
) -> list[str]:
    """Detect in a band's tiles and write the results; returns the warnings. ``advance`` is called after each tile."""
    plan = parts.plan
    look = _look(model, plane, plan, thresholds)
    rows: list[dict[str, np.ndarray]] = []
    for tile in plan.bands()[number]:
        look.at(tile)
        advance()
        for part in look.parts:
            row = _row(near_core(*part, plan.shape, plan.factor), plan, thresholds.mask)
            owner = len(rows) + 1 + (number << 32)
            rows.append(row | {"owners": np.full(len(row["scores"]), owner, np.int64)})
        look.parts = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        look.warn()
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    said = [str(w.message) for w in caught]
    columns["warnings"] = np.array(said, "str")
    with atomic_write(parts.path(number)) as place, open(place, "wb") as file:
        np.savez(file, **columns)
    return said


def predict_slide(
    model, image, thresholds, *, score_threshold=None, max_detections=None, progress=None, **how
):
    """Nuclei in a large image that is read piece by piece, in this process.

    Arguments as :meth:`~nucleus_course.prediction.segmenter.Segmenter.predict`.

    Returns:
        :class:`~nucleus_course.prediction.detections.Detections` of at least ``score_threshold``, by default the
        operating point's; None if the image is to be read whole.
    """
    looks = how.get("input") or getattr(model.config, "input", "")
    plane = None
    if model.kind == "mask_rcnn" and looks == "canonical":
        plane = lazy_plane(image)
    if plane is None:
        return None
    least = thresholds.score if score_threshold is None else score_threshold
    plan = plan_slide(model, plane, thresholds, least, how)
    for line in [*plane.notes, PIECEWISE.format(least)]:
        print(line, file=sys.stderr)
    look = _look(model, plane, plan, thresholds)
    tiles = grid(plan.shape, plan.core)
    show = len(tiles) >= SHOWN if progress is None else progress
    for tile in track(tiles, "detecting", show=show):
        first = len(look.parts)
        look.at(tile)
        look.parts[first:] = [
            (*rest, found.confident(least)) for *rest, found in look.parts[first:]
        ]
    plane.close()
    look.warn()
    found = look.merged().take(slice(0, max_detections))
    found.canonical, found.scale = plan.canonical, plan.factor
    found.learned = None if plan.novelty is None else Measured(plan.novelty)
    return found


def _look(model, plane, plan, thresholds):
    """A :class:`~nucleus_course.prediction.tiles.Look` at a slide."""
    seen = plan.canonical

    def view(top, left, bottom, right):
        grey = canonical_piece(plane.read(top, left, bottom, right), seen)
        return np.broadcast_to(grey[..., None], (*grey.shape, 3))

    return Look(model, plan.shape, view, thresholds, plan.score_threshold, plan.margin, plan.factor)


def _row(near, plan, mask_threshold):
    """The columns that a tile adds: its detections above the score threshold, with masks as runs."""
    own, cut, boxes, scores, probs, spans = near
    sure = scores >= plan.score_threshold
    own, cut, boxes, scores = own[sure], cut[sure], boxes[sure], scores[sure]
    probs = probs[sure]
    instance, row, column = paste(probs, spans[sure], *plan.shape, mask_threshold)
    runs = runs_from_pixels(instance, column.astype(np.int64) * plan.height + row, len(scores))
    return {
        "own": own, "cut": cut, "boxes": boxes, "scores": scores, "quality": outline_quality(probs),
        "runs": np.bincount(runs.mask, minlength=len(scores)).astype(np.int32),
        "start": runs.start.astype(np.int64), "length": runs.length.astype(np.int32),
    }  # fmt: skip


def gather(parts: Parts, nms_iou: float, min_area: int) -> Nuclei:
    """The nuclei of all bands, merged, best first.

    Args:
        nms_iou: as for :func:`~nucleus_course.prediction.tiles.merge`.
        min_area: nuclei left with fewer image pixels get no label.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for number in range(len(parts.plan.bands())):
        with np.load(parts.path(number), allow_pickle=False) as band:
            for name in band.files:
                columns.setdefault(name, []).append(band[name])
    table = {name: np.concatenate(columns.pop(name)) for name in list(columns)}
    keep = merge(*(table[n] for n in ("boxes", "scores", "owners", "own", "cut")), nms_iou)
    keep = keep[np.argsort(-table["scores"][keep], kind="stable")]
    runs, where = table["runs"], np.cumsum(table["runs"]) - table["runs"]
    place = ranges(where[keep], runs[keep])
    masks = Runs(
        np.repeat(np.arange(len(keep)), runs[keep]), table["start"][place], table["length"][place],
        np.zeros(0, np.int64),
    )  # fmt: skip
    of_each = (table[name][keep] for name in ("boxes", "scores", "quality"))
    return Nuclei(parts.plan, *of_each, masks, min_area, tuple(table["warnings"].tolist()))
