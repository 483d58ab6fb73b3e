"""Fit a :class:`~nucleus_course.prediction.rescorer.Rescorer` to a model's detections on annotated images."""

from dataclasses import dataclass

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.progress import track
from nucleus_course.data.labels import renumber
from nucleus_course.evaluation.coco import PrecisionTable, average_precisions, match_image
from nucleus_course.evaluation.matching import mask_iou
from nucleus_course.geometry.boxes import dilate
from nucleus_course.geometry.rle import runs_from_pixels
from nucleus_course.prediction import flips
from nucleus_course.prediction.detections import Detections
from nucleus_course.prediction.pipeline import drawn, prepare, raw_detections
from nucleus_course.prediction.rescorer import FEATURES, REACH, Rescorer, describe, own_scores

FEWEST = 200  # detections: with fewer, 12 features cannot be fitted


@dataclass(frozen=True)
class MatchedDetections:
    """A model's detections on one image, compared with its nuclei.

    Attributes:
        features: (D, F) float32, see :func:`~nucleus_course.prediction.rescorer.describe`.
        scores: (D,) float32, the network's own (:func:`~nucleus_course.prediction.rescorer.own_scores`).
        iou: (D, G) float64 with the image's nuclei.
    """

    features: np.ndarray
    scores: np.ndarray
    iou: np.ndarray


def match_detections(model, dataset, progress=True):
    """A model's detections on annotated images: a list of :class:`MatchedDetections`, one for each image.

    Args:
        model: :class:`~nucleus_course.prediction.segmenter.MaskRCNN`; its thresholds give the number of flips.
        dataset: :class:`~nucleus_course.data.Dataset`.
    """
    seen, config, thresholds = [], model.config, model.thresholds
    for record in track(dataset, "predicting", show=progress):
        prepared = prepare(record.raw, config, flips.VIEWS[: thresholds.flips])
        found = raw_detections(model, prepared, thresholds)
        boxes, scores, probs = drawn(*found, thresholds.mask)
        grids = dilate(boxes, config.mask_roi_scale) / config.upsample
        found = Detections(boxes, scores, probs, grids, *prepared.shape, thresholds)
        instance, row, column = found.pixels()
        runs = runs_from_pixels(instance, column * found.height + row, len(found))
        iou = mask_iou(runs, renumber(record.labels))
        features = describe(boxes, scores, probs)
        seen.append(MatchedDetections(features, own_scores(config, scores, probs), iou))
    return seen


def matched_iou(iou, scores):
    """(D,) float32: each detection's IoU with the nucleus that it matches by COCO's rule at 0.5, 0 without one.

    Args:
        iou: (D, G); scores: (D,), in whose order the detections take their nuclei.
    """
    matches = match_image(iou, scores, max_detections=len(scores))
    quality = np.zeros(len(scores), "float32")
    hit = matches.nucleus[0] >= 0
    quality[matches.order[hit]] = matches.iou[hit, matches.nucleus[0][hit]]
    return quality


def average_precision(seen, rescorer=None):
    """COCO's AP (percent) of the output of :func:`match_detections`, with its own scores or a rescorer's."""
    scores = [s.scores if rescorer is None else rescorer.scores(s.features) for s in seen]
    table = PrecisionTable([match_image(s.iou, own) for s, own in zip(seen, scores)])
    return 100.0 * average_precisions(table.precision())[0]


def mean_score_and_iou(seen, rescorer, least=0.5):
    """Mean score, and mean IoU with the matched nucleus, of the detections to which a rescorer gives ``least`` or more.

    A larger mean score shows that the rescorer was fitted to better detections than these, such as those on the
    model's own training images.

    Returns:
        Two floats in [0, 1]; NaN without such detections.
    """
    given = [rescorer.scores(s.features) for s in seen]
    true = [matched_iou(s.iou, scores) for s, scores in zip(seen, given)]
    given, true = (np.concatenate([*parts, np.zeros(0)]) for parts in (given, true))
    sure = given >= least
    return (float(given[sure].mean()), float(true[sure].mean())) if sure.any() else (np.nan, np.nan)


def fit_rescorer(seen, *, networks=5, hidden=16, epochs=30, seed=0, info=None, progress=True):
    """Fit the expected IoU of each detection: cross-entropy with the IoU as a soft label, AdamW, cosine schedule.

    Args:
        seen: list of :class:`MatchedDetections`.
        networks: how many to average; the scores of a single one depend on its seed.
        hidden: units of each hidden layer.
        info: notes for people, kept in the rescorer's file.

    Raises:
        UserError: too few detections, none right, or none wrong.
    """
    none = np.zeros((0, len(FEATURES)), "float32")
    features = np.concatenate([none, *(s.features for s in seen)])
    quality = np.concatenate([none[:, 0], *(matched_iou(s.iou, s.scores) for s in seen)])
    right = int((quality > 0).sum())
    if len(quality) < FEWEST or right in (0, len(quality)):
        raise UserError(
            f"{len(quality)} detections, {right} of them on a nucleus, are too few to fit scores: "
            f"at least {FEWEST} are needed, right and wrong ones; give more images with --data or --split"
        )
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    x = np.clip((features - mean) / scale, -REACH, REACH).astype("float32")
    layers = []
    for network in track(range(networks), "fitting scores", show=progress):
        layers.append(_fit(x, quality, hidden, epochs, seed + network))
    hidden_kernel, hidden_bias, kernel, bias = (np.stack(arrays) for arrays in zip(*layers))
    return Rescorer(mean, scale, hidden_kernel, hidden_bias, kernel[..., 0], bias[:, 0], info or {})


def _fit(x, quality, hidden, epochs, seed):
    """The layers' weights of one network, as Keras gives them. No global seed is set."""
    import keras

    order = np.random.default_rng(seed).permutation(len(x))
    batch = min(256, len(x))
    start = [keras.initializers.GlorotUniform(2 * seed + i) for i in (0, 1)]
    decay = keras.regularizers.l2(1e-4)
    layers = keras.layers
    first = {"kernel_initializer": start[0], "kernel_regularizer": decay, "dtype": "float32"}
    last = {"kernel_initializer": start[1], "dtype": "float32"}
    network = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            layers.Dense(hidden, "relu", **first),
            layers.Dense(1, "sigmoid", **last),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * -(-len(x) // batch))
    network.compile(keras.optimizers.AdamW(rate, weight_decay=1e-3), "binary_crossentropy")
    options = {"batch_size": batch, "epochs": epochs, "shuffle": False, "verbose": 0}
    network.fit(x[order], quality[order, None], **options)
    return network.get_weights()
