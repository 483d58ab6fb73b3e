"""From a stored image to the network's input: one function for training, prediction and evaluation.

Two steps, because augmentation works on uint8 in between: :func:`see` normalises the whole image,
:func:`to_network` works pixel by pixel. A model's ``config.input`` says what it sees: the image's own
colours, stretched (:func:`stretch`), or canonical grey (:mod:`nucleus_course.data.canonical`).
"""

from dataclasses import dataclass

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.canonical import Canonical, canonical, count_percentiles
from nucleus_course.data.read import to_rgb8

INPUTS = ("colour", "canonical")
# Percentiles of brightness that become 0 and 255. The upper one is high because a single small nucleus in a
# 256 x 256 image covers only a thousandth of it and must not be cut off.
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.95
MIN_CONTRAST = 8.0  # grey levels; limits how far an empty image's noise is amplified
DARK_GAMMA = 0.6  # exponent that lifts dim nuclei beside bright ones on a dark background


@dataclass(frozen=True)
class View:
    """A normalised image, before :func:`to_network`: ``pixels`` uint8 (H, W, 3), and the
    :class:`~nucleus_course.data.canonical.Canonical` form, None for the input ``colour``."""

    pixels: np.ndarray
    canonical: Canonical | None = None


def see(image, config, polarity="auto", input=None):
    """The :class:`View` of an image that a model's config requires.

    Args:
        image: any that :func:`~nucleus_course.data.read.to_rgb8` takes, with its values as stored. A :class:`View`
            is returned as it is.
        config: a model's config.
        polarity: for the canonical input, see :func:`~nucleus_course.data.canonical.canonical`.
        input: "canonical" or "colour" instead of the config's.

    Raises:
        UserError: not an image, an unknown input, or a polarity for the colour input.
    """
    if isinstance(image, View):
        return image
    input = config.input if input is None else input
    if input == "canonical":
        seen = canonical(image, polarity)
        return View(seen.rgb, seen)
    if input != "colour":
        raise UserError(f"input {input!r}: choose one of {', '.join(INPUTS)}")
    if polarity != "auto":
        raise UserError(
            f"polarity {polarity!r} needs the canonical input; with the input colour, images are used as they are"
        )
    return View(stretch(to_rgb8(image), config))


def stretch(image, config):
    """The preset's normalisation of a whole image: uint8 (H, W, 3) -> uint8 (H, W, 3).

    ``mean`` changes nothing. ``percentile`` maps the 0.5th to 99.95th percentile of brightness to
    0..255, the same for all channels, so that dim and bright exposures look alike and the hue is kept.
    If the median is then dark (fluorescence), values are raised to the power of 0.6.
    An image with a signal in one channel only (DAPI saved as blue on black) becomes that channel in grey.
    """
    if config.normalization != "percentile":
        return image
    import cv2

    image = _grey_if_one_channel(image)
    # Counting the 766 possible sums of three channels takes a tenth of the time of np.percentile.
    total = image[..., 0].astype("uint16") + image[..., 1] + image[..., 2]
    counts = np.bincount(total.ravel(), minlength=3 * 255 + 1)
    low, middle, high = count_percentiles(counts, (LOW_PERCENTILE, 50.0, HIGH_PERCENTILE)) / 3.0
    table = np.clip((np.arange(256) - low) / max(high - low, MIN_CONTRAST), 0.0, 1.0)
    if table[int(middle)] < 0.5:
        table = table**DARK_GAMMA
    return cv2.LUT(image, np.rint(255.0 * table).astype("uint8"))


def _grey_if_one_channel(image):
    for seen in (image[::8, ::8], image):  # a sample decides most images
        informative = [
            channel for channel in range(3) if np.ptp(seen[..., channel]) >= MIN_CONTRAST
        ]
        if len(informative) > 1:
            return image
    return np.repeat(image[..., informative], 3, axis=2) if informative else image


def to_network(image, config):
    """uint8 (H, W, 3) -> float32 (H * s, W * s, 3) with s = ``config.upsample``; bilinear, half-pixel centres.

    ``mean``: minus the channel means (Matterport's nucleus sample). ``percentile``: to [-1, 1].
    """
    if config.normalization == "percentile" and config.upsample == 1.0:
        import cv2

        return cv2.LUT(image, np.arange(256, dtype="float32") / 127.5 - 1.0)
    image = image.astype("float32")
    if config.upsample != 1.0:
        image = resize(image, config.upsample)
    if config.normalization == "percentile":
        return image / 127.5 - 1.0
    return image - np.asarray(config.mean_pixel, "float32")


def resize(image, scale):
    """An image (H, W[, C]) scaled by ``scale``: bilinear for floats, nearest for integer label maps."""
    import cv2

    height, width = (int(round(side * scale)) for side in image.shape[:2])
    if np.issubdtype(image.dtype, np.integer):
        rows = np.minimum(((np.arange(height) + 0.5) / scale).astype(int), image.shape[0] - 1)
        columns = np.minimum(((np.arange(width) + 0.5) / scale).astype(int), image.shape[1] - 1)
        return image[rows[:, None], columns[None]]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
