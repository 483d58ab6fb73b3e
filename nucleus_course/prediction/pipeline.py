"""The five steps from an image to nuclei, for Mask R-CNN. Everything that detects goes through them.

1. :func:`prepare`: the image as the network's input, once per view;
2. ``engine.candidates``: boxes and scores, before the final NMS;
3. :func:`select`: the final NMS, over all views;
4. ``engine.masks``: a mask for each box that is left;
5. :func:`assemble`: scores that count the masks, image pixels, :class:`Detections`.

Steps 2 and 4 run the network: :mod:`nucleus_course.prediction.engines` has one class for each way to run it.
"""

from dataclasses import dataclass

import numpy as np

from nucleus_course.data.preprocess import see, to_network
from nucleus_course.geometry.boxes import dilate, greedy_nms
from nucleus_course.prediction import flips
from nucleus_course.prediction.detections import Detections
from nucleus_course.prediction.rescorer import own_scores

# Detections below this score are dropped: AP on whole splits does not change without them.
MIN_SCORE = 0.02


@dataclass
class Prepared:
    """An image as the network takes it.

    Attributes:
        input: (V, H', W', 3) float32, one row per view, padded with zeros to one of few sizes.
        windows: (V, 2) float32, height and width before padding, network pixels.
        views: the flips, see :mod:`nucleus_course.prediction.flips`.
        shape: height and width of the image, image pixels.
    """

    input: np.ndarray
    windows: np.ndarray
    views: tuple
    shape: tuple

    @property
    def window(self):
        """Height and width before padding, network pixels."""
        return self.windows[0]


def prepare(image, config, views=flips.VIEWS[:1]):
    """Step 1: any image to the network's input.

    Args:
        image: (H, W), (H, W, 3) or (H, W, 4); uint8, uint16 or float; or a
            :class:`~nucleus_course.data.preprocess.View`.
        config: :class:`~nucleus_course.config.ModelConfig`.
        views: flips to use, see :mod:`nucleus_course.prediction.flips`.

    Returns:
        :class:`Prepared`.

    Raises:
        UserError: the array is not an image.
    """
    return prepare_picture(see(image, config).pixels, config, views)


def prepare_picture(picture, config, views=flips.VIEWS[:1]):
    """Step 1 for an already normalised image or tile: uint8 (H, W, 3)."""
    network = to_network(picture, config)
    height, width = network.shape[:2]
    sides = (round_up(height, config.pad_multiple), round_up(width, config.pad_multiple))
    padded = np.zeros((len(views), *sides, 3), "float32")
    for row, flip in zip(padded, views):
        row[:height, :width] = flips.flip_image(network, flip)
    windows = np.tile(np.array([[height, width]], "float32"), (len(views), 1))
    return Prepared(padded, windows, tuple(views), picture.shape[:2])


def round_up(side, multiple):
    """A side in pixels, rounded up: to multiples of 64 up to 512, of 128 beyond, at least ``multiple``."""
    step = max(64 if side <= 512 else 128, multiple)
    return -(-side // step) * step


def select(boxes, scores, nms_iou, limit):
    """Step 3: candidates of all views (V, P, 4), (V, P) to final boxes (K, 4) and scores (K,)."""
    scores = np.where(scores >= MIN_SCORE, scores, -1)
    flat_boxes, flat_scores = boxes.reshape(-1, 4), scores.reshape(-1)
    order = np.argsort(-flat_scores, kind="stable")
    kept = order[greedy_nms(flat_boxes[order], flat_scores[order], nms_iou, limit)]
    if len(boxes) == 1:
        return flat_boxes[kept], flat_scores[kept]
    return flips.fuse_boxes(boxes, scores, kept)


def drawn(boxes, scores, probs, mask):
    """The detections whose mask has a cell at the threshold; the others are empty."""
    some = (probs >= mask).any(axis=(1, 2))
    return boxes[some], scores[some], probs[some]


def assemble(config, shape, boxes, scores, probs, thresholds, rescorer=None):
    """Step 5: boxes (N, 4) in network pixels, scores and masks to :class:`Detections` in image pixels.

    The score is the ``rescorer``'s (:mod:`nucleus_course.prediction.rescorer`), if there is one;
    else the class probability, times the mean mask probability if ``config.mask_scoring``.
    """
    boxes, scores, probs = drawn(boxes, scores, probs, thresholds.mask)
    scores = (
        own_scores(config, scores, probs) if rescorer is None else rescorer(boxes, scores, probs)
    )
    order = np.argsort(-scores, kind="stable")
    boxes, scores, probs = boxes[order], scores[order], probs[order]
    grid = dilate(boxes, config.mask_roi_scale) / config.upsample
    return Detections(boxes / config.upsample, scores, probs, grid, *shape, thresholds)


def raw_boxes(model, prepared, thresholds, least=0.0):
    """Steps 2 and 3.

    Args:
        model: :class:`~nucleus_course.prediction.segmenter.MaskRCNN`.
        prepared: :class:`Prepared`.
        thresholds: :class:`~nucleus_course.config.Thresholds`, for its ``nms_iou``.
        least: class probability below which a box is dropped.

    Returns:
        pyramid, boxes (N, 4) network pixels, class probabilities (N,).
    """
    pyramid, boxes, scores = model.engine.candidates(prepared)
    boxes, scores = select(boxes, scores, thresholds.nms_iou, model.config.max_detections)
    return pyramid, boxes[scores >= least], scores[scores >= least]


def raw_detections(model, prepared, thresholds):
    """Steps 2 to 4, arguments as :func:`raw_boxes`: boxes (N, 4), class probabilities (N,), masks (N, S, S)."""
    pyramid, boxes, scores = raw_boxes(model, prepared, thresholds)
    return boxes, scores, model.engine.masks(pyramid, boxes, prepared)
