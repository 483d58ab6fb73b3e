"""From a U-Net's pixel maps to nuclei: image in, :class:`~nucleus_course.prediction.label_detections.LabelDetections` out."""

import dataclasses

import numpy as np

from nucleus_course.data.preprocess import resize, stretch, to_network
from nucleus_course.data.read import to_rgb8
from nucleus_course.geometry.watershed import separate
from nucleus_course.prediction import flips as tta
from nucleus_course.prediction.label_detections import LabelDetections

TILE = 1024  # larger images are predicted in tiles, network pixels
MARGIN = 96  # what a tile sees beyond its own part; most of the network's view

INTERIOR = 0.5  # probability from which a pixel is taken as interior
DEPTH = 1.0  # pixels: a waist of the interior deeper than that separates two nuclei


def predict_pixels(
    model,
    image,
    *,
    score_threshold=None,
    max_detections=None,
    nms_iou=None,
    mask_threshold=None,
    flips=None,
):
    """Nuclei in one image, at its own size.

    Args:
        model: :class:`~nucleus_course.models.unet.UNet`.
        image: (H, W), (H, W, 3) or (H, W, 4); uint8, uint16 or float.
        score_threshold: drop nuclei below it here; by default all come, and ``label_image`` applies the operating point.
        max_detections: most nuclei; by default no limit.
        mask_threshold, flips: override the model's thresholds.
        nms_iou: taken for the sake of one interface, without effect: pixels belong to one nucleus each.

    Returns:
        :class:`~nucleus_course.prediction.label_detections.LabelDetections`.

    Raises:
        UserError: the array is no image.
    """
    changes = {"mask": mask_threshold, "flips": flips}
    thresholds = dataclasses.replace(
        model.thresholds, **{k: v for k, v in changes.items() if v is not None}
    )
    maps = pixel_maps(model, image, thresholds.flips)
    labels, scores = objects_from_maps(maps[..., 0], maps[..., 1], thresholds.mask)
    found = LabelDetections.from_labels(labels, scores, thresholds)
    if max_detections is not None and len(found) > max_detections:
        labels = np.where(found.labels > max_detections, 0, found.labels)
        found = LabelDetections(labels, found.scores[:max_detections], thresholds)
    return found if score_threshold is None else found.confident(score_threshold)


def pixel_maps(model, image, flips=1):
    """Probabilities that a pixel is nucleus and interior, (H, W, 2) float32, the mean over ``flips`` views."""
    image = to_rgb8(image)
    network = to_network(stretch(image, model.config), model.config)
    views = tta.VIEWS[:flips]
    maps = np.mean(
        [tta.flip_image(_tiled(model, tta.flip_image(network, v)), v) for v in views], axis=0
    )
    if model.config.upsample != 1.0:
        maps = resize(maps, 1.0 / model.config.upsample)[: image.shape[0], : image.shape[1]]
    return maps


def _tiled(model, image):
    """The maps of a prepared image (H, W, 3), tile by tile where it is large: (H, W, 2)."""
    height, width = image.shape[:2]
    out = np.empty((height, width, 2), "float32")
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            y, x = max(0, top - MARGIN), max(0, left - MARGIN)
            part = image[y : top + TILE + MARGIN, x : left + TILE + MARGIN]
            own = out[top : top + TILE, left : left + TILE]
            own[...] = _maps(model, part)[top - y :, left - x :][: own.shape[0], : own.shape[1]]
    return out


def _maps(model, image):
    from keras import ops

    from nucleus_course.prediction.engines.compiled import compiled

    if getattr(model, "_compiled_maps", None) is None:
        object.__setattr__(
            model, "_compiled_maps", compiled(lambda x: ops.sigmoid(model.network(x)), model)
        )
    height, width = image.shape[:2]
    # Few sizes, so that few are compiled; mirrored, because a grey rim is nothing the network has seen.
    padding = [(0, _rounded(side, model.config.pad_multiple) - side) for side in (height, width)]
    padded = np.pad(image, [*padding, (0, 0)], mode="symmetric")
    return ops.convert_to_numpy(model._compiled_maps(padded[None]))[0, :height, :width]


def _rounded(side, multiple):
    step = max(64 if side <= 512 else 128, multiple)
    return -(-side // step) * step


def objects_from_maps(
    nucleus, interior, mask_threshold=0.5, interior_threshold=INTERIOR, depth=DEPTH
):
    """Nuclei from the two maps.

    Every connected piece of the interior starts a nucleus, or several where it has a waist
    (:func:`~nucleus_course.geometry.watershed.separate`); a watershed on the interior's probability then shares the pixels that
    are nucleus out among them. A piece of nucleus without interior, too small for one, is a nucleus of its own.

    The score is the mean probability of nucleus over its pixels times the largest probability of interior in it: low
    for a faint smear, and for a body in which the network saw no clear inside.

    Args:
        nucleus, interior: (H, W) float in [0, 1].

    Returns:
        labels (H, W) int32 1..n, scores (n,) float32.
    """
    from scipy.ndimage import label, maximum, mean
    from skimage.segmentation import watershed

    mask = nucleus >= mask_threshold
    seeds = separate(mask & (interior >= interior_threshold), depth)
    # Neighbours across corners too: then a nucleus gets its whole outer ring before any other reaches it.
    labels = watershed(-interior, seeds, mask=mask, connectivity=2)
    rest, _ = label(mask & (labels == 0))
    labels = np.where(rest > 0, rest + labels.max(initial=0), labels).astype("int32")
    count = int(labels.max(initial=0))
    if not count:
        return labels, np.zeros(0, "float32")
    index = np.arange(1, count + 1)
    scores = np.asarray(mean(nucleus, labels, index)) * np.asarray(maximum(interior, labels, index))
    return labels, np.clip(scores, 0.0, 1.0).astype("float32")
