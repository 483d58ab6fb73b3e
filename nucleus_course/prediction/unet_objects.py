"""From a U-Net's pixel maps to nuclei: image in, :class:`~nucleus_course.prediction.label_detections.LabelDetections` out."""

import numpy as np
from keras import ops

from nucleus_course._util.errors import UserError
from nucleus_course.data.preprocess import resize, see, to_network
from nucleus_course.geometry.watershed import separate
from nucleus_course.prediction import flips
from nucleus_course.prediction.engines.compiled import compiled
from nucleus_course.prediction.label_detections import LabelDetections
from nucleus_course.prediction.pipeline import round_up
from nucleus_course.prediction.scale import check_diameter

TILE = 1024  # larger images are predicted in tiles, network pixels
MARGIN = 96  # pixels around a tile that are seen as well; most of the receptive field

INTERIOR = 0.5  # probability from which a pixel counts as interior
DEPTH = 1.0  # pixels; a deeper waist of the interior separates two nuclei


def predict_pixels(
    model,
    image,
    thresholds,
    *,
    max_detections=None,
    score_threshold=None,
    polarity="auto",
    input=None,
    diameter="auto",
    **_,
):
    """Nuclei in one image, at its own size, as
    :class:`~nucleus_course.prediction.label_detections.LabelDetections`.

    Arguments as :meth:`~nucleus_course.prediction.segmenter.Segmenter.predict`, without those for NMS and
    tiles. A ``diameter`` in pixels is refused.
    """
    if isinstance(check_diameter(diameter), float):
        raise UserError(
            f"diameter {diameter}: a U-Net uses images as they are; resize the image first"
        )
    seen = see(image, model.config, polarity, input)
    maps = pixel_maps(model, seen, thresholds.flips)
    labels, scores = objects_from_maps(maps[..., 0], maps[..., 1], thresholds.mask)
    found = LabelDetections.from_labels(labels, scores, thresholds)
    if max_detections is not None and len(found) > max_detections:
        labels = np.where(found.labels > max_detections, 0, found.labels)
        found = LabelDetections(labels, found.scores[:max_detections], thresholds)
    found.canonical, found.learned = seen.canonical, model.novelty
    return found if score_threshold is None else found.confident(score_threshold)


def pixel_maps(model, image, views=1):
    """Probabilities of nucleus and of interior for each pixel, (H, W, 2) float32, averaged over ``views`` flips."""
    seen = see(image, model.config).pixels
    network = to_network(seen, model.config)
    turned = [(flips.flip_image(network, flip), flip) for flip in flips.VIEWS[:views]]
    maps = np.mean([flips.flip_image(_tiled(model, part), flip) for part, flip in turned], axis=0)
    if model.config.upsample != 1.0:
        maps = resize(maps, 1.0 / model.config.upsample)[: seen.shape[0], : seen.shape[1]]
    return maps


def _tiled(model, image):
    """The maps of a prepared image (H, W, 3), tile by tile if it is large: (H, W, 2)."""
    height, width = image.shape[:2]
    out = np.empty((height, width, 2), "float32")
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            y, x = max(0, top - MARGIN), max(0, left - MARGIN)
            part = image[y : top + TILE + MARGIN, x : left + TILE + MARGIN]
            own = out[top : top + TILE, left : left + TILE]
            maps = model.engine.maps(_padded(part, model.config))
            own[...] = maps[top - y :, left - x :][: own.shape[0], : own.shape[1]]
    return out


def _padded(image, config):
    """The image padded to one of few sizes, so that few are compiled; mirrored, for the network has seen no grey edges."""
    sides = [(0, round_up(side, config.pad_multiple) - side) for side in image.shape[:2]]
    return np.pad(image, [*sides, (0, 0)], mode="symmetric")


class UNetEngine:
    """Runs a U-Net on the backend that Keras uses, compiled once per shape."""

    def __init__(self, network):
        self._maps = compiled(lambda x: ops.sigmoid(network.network(x)), network)

    def maps(self, image):
        """Both maps of one prepared image: (H, W, 3) float32 -> (H, W, 2) float32."""
        return ops.convert_to_numpy(self._maps(image[None]))[0]


def objects_from_maps(
    nucleus, interior, mask_threshold=0.5, interior_threshold=INTERIOR, depth=DEPTH
):
    """Nuclei from the two maps.

    Every connected piece of the interior is the seed of a nucleus, or of several if it has a waist
    (:func:`~nucleus_course.geometry.watershed.separate`). A watershed on the interior's probability assigns the
    nucleus pixels to the seeds. A piece too small for an interior becomes a nucleus of its own.

    The score is the mean nucleus probability over its pixels times its largest interior probability: low for
    faint smears and for objects without a clear interior.

    Args:
        nucleus, interior: (H, W) float in [0, 1].

    Returns:
        labels (H, W) int32 1..n, scores (n,) float32.
    """
    from scipy.ndimage import label, maximum, mean
    from skimage.segmentation import watershed

    mask = nucleus >= mask_threshold
    seeds = separate(mask & (interior >= interior_threshold), depth)
    # With neighbours across corners a nucleus gets its whole outer ring before another reaches it.
    labels = watershed(-interior, seeds, mask=mask, connectivity=2)
    rest, _ = label(mask & (labels == 0))
    labels = np.where(rest > 0, rest + labels.max(initial=0), labels).astype("int32")
    count = int(labels.max(initial=0))
    if not count:
        return labels, np.zeros(0, "float32")
    index = np.arange(1, count + 1)
    scores = np.asarray(mean(nucleus, labels, index)) * np.asarray(maximum(interior, labels, index))
    return labels, np.clip(scores, 0.0, 1.0).astype("float32")
