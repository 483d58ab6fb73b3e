"""The classical baseline: Otsu's threshold and a watershed on the distance transform, no learning.

Otsu 1979 splits grey levels into two classes; the watershed is Vincent and Soille's (1991). The steps:

1. grey values (mean of the channels), smoothed by a Gaussian of ``sigma`` pixels;
2. Otsu's threshold separates bright from dark. Nuclei are on the side where the image's border and median
   are *not*: fluorescence is bright on dark, stained tissue dark on bright;
3. holes are filled, and pieces under ``min_area`` pixels removed;
4. touching nuclei: every maximum of the distance to the background that stands ``depth`` pixels above the
   saddle to a higher one is a nucleus, and a watershed divides the foreground among them.

**Score.** The method gives none, but average precision needs one. Here it is the nucleus's contrast: how far
its mean grey value lies beyond the threshold, as a share of the image's largest such distance; from 0 (hardly
visible) to 1. It ranks the nuclei but is not a probability.

**Parameters.** Those of :class:`OtsuConfig` gave the highest ``dsb_score`` (47.3) of the 36 combinations in
:data:`GRID` on every fifth image of the *train* split of BBBC038 (:func:`search_otsu`; ``nucleus-course baseline
otsu --search`` repeats it). The validation split was not used.
"""

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np

from nucleus_course._util.progress import track
from nucleus_course.config import Thresholds
from nucleus_course.data.labels import renumber
from nucleus_course.data.read import to_rgb8
from nucleus_course.evaluation.matching import overlap_matrix
from nucleus_course.evaluation.metrics import COLUMNS, image_sums, values_from_sums
from nucleus_course.geometry.watershed import separate
from nucleus_course.prediction.interchange import Predictions
from nucleus_course.prediction.label_detections import LabelDetections


@dataclass(frozen=True)
class OtsuConfig:
    """Lengths in pixels: smoothing, the depth of a saddle that separates two nuclei, the smallest nucleus."""

    sigma: float = 0.0
    depth: float = 1.0
    min_area: int = 40


GRID = {"sigma": (0.0, 0.5, 1.0), "depth": (0.5, 1.0, 2.0), "min_area": (10, 20, 40, 60)}
SEARCH_STEP = 5  # every fifth image of train


def foreground(grey):
    """Otsu's threshold of a grey image, and the side on which the nuclei are.

    Args:
        grey: (H, W) float.

    Returns:
        (mask (H, W) bool, threshold float, bright bool). An image of one grey level has no foreground.
    """
    from skimage.filters import threshold_otsu

    if grey.size == 0 or grey.min() == grey.max():
        return np.zeros(grey.shape, bool), float(grey.flat[0]) if grey.size else 0.0, True
    threshold = float(threshold_otsu(grey))
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    background = 0.5 * (np.median(border) + np.median(grey))
    bright = bool(background <= threshold)
    return (grey > threshold if bright else grey <= threshold), threshold, bright


def segment_otsu(image, config=OtsuConfig()):
    """Nuclei by Otsu's threshold and watershed.

    Args:
        image: (H, W), (H, W, 3) or (H, W, 4); uint8, uint16 or float.
        config: :class:`OtsuConfig`.

    Returns:
        :class:`~nucleus_course.prediction.label_detections.LabelDetections`, all of which count (score threshold 0).
    """
    from scipy.ndimage import binary_fill_holes, gaussian_filter

    grey = to_rgb8(image).astype("float32").mean(axis=-1)
    if config.sigma:
        grey = gaussian_filter(grey, config.sigma, mode="nearest")
    mask, threshold, bright = foreground(grey)
    labels = separate(_without_small(binary_fill_holes(mask), config.min_area), config.depth)
    areas = np.bincount(labels.ravel())
    labels[areas[labels] < config.min_area] = 0
    scores = contrast_scores(labels, grey, threshold, bright)
    return LabelDetections.from_labels(labels, scores, Thresholds(score=0.0, min_area=0))


def contrast_scores(labels, grey, threshold, bright=True):
    """(N,) in [0, 1]: how far each label's mean lies beyond the threshold, over the image's largest such distance."""
    # Filled holes count as 0.
    beyond = np.maximum(grey - threshold if bright else threshold - grey, 0)
    areas = np.bincount(labels.ravel())
    present = np.flatnonzero(areas[1:]) + 1
    means = np.bincount(labels.ravel(), beyond.ravel())[present] / areas[present]
    return np.clip(means / max(float(beyond.max(initial=0)), 1e-6), 0, 1)


def predict_otsu(dataset, config=OtsuConfig(), progress=True):
    """:func:`segment_otsu` on every image of a data set, as :class:`~nucleus_course.prediction.interchange.Predictions`."""
    labels, scores = {}, {}
    for image_id in track(dataset.ids, "Otsu and watershed", show=progress):
        found = segment_otsu(dataset[image_id].image, config)
        labels[image_id], scores[image_id] = found.labels, found.scores
    info = {
        "model": "Otsu + watershed",
        "baseline": "otsu",
        "parameters": dataclasses.asdict(config),
    }
    return Predictions.from_label_images(labels, scores, 0.0, info)


def search_otsu(dataset, grid=None, step=SEARCH_STEP, metric="dsb_score", progress=True):
    """Try every combination of parameters on part of a data set.

    Args:
        dataset: the train split: the validation split would flatter the baseline.
        grid: {parameter: candidates}, by default :data:`GRID`.
        step: take every ``step``-th image.
        metric: one of those at the operating point, such as dsb_score, f1_50, mean_mask_iou, aji.

    Returns:
        list of {"sigma", "depth", "min_area", "value" (percent)}, best first.
    """
    grid = grid or GRID
    configs = [
        OtsuConfig(**dict(zip(grid, values))) for values in itertools.product(*grid.values())
    ]
    sums = np.zeros((len(configs), len(COLUMNS)))
    for image_id in track(list(dataset.ids)[::step], f"{len(configs)} combinations", show=progress):
        record = dataset[image_id]
        truth = renumber(record.labels)
        for row, config in zip(sums, configs):
            row += image_sums(overlap_matrix(segment_otsu(record.image, config).labels, truth))
    values = values_from_sums(sums)[metric]
    order = np.argsort(-np.nan_to_num(values, nan=-1.0), kind="stable")
    return [{**dataclasses.asdict(configs[i]), "value": float(values[i])} for i in order]


def _without_small(mask, min_area):
    from scipy.ndimage import label

    pieces, _ = label(mask)
    return mask & (np.bincount(pieces.ravel()) >= min_area)[pieces]
