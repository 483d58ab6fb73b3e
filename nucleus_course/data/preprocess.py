"""From a stored image to the network's input: one function for training, prediction and evaluation.

Two steps, because augmentation works on uint8 in between: :func:`see` sees the whole image,
:func:`to_network` only does arithmetic. Which view a model has is its config's ``input``: colour as it
comes, stretched (:func:`stretch`), or canonical grey (:mod:`nucleus_course.data.canonical`).
"""

from dataclasses import dataclass

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.canonical import Canonical, canonical, count_percentiles
from nucleus_course.data.read import to_rgb8

INPUTS = ("colour", "canonical")
# Percentiles of brightness that become 0 and 255. The upper one is far out: a single small nucleus in a
# 256 x 256 image is a thousandth of it and must not be cut off.
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.95
MIN_CONTRAST = 8.0  # grey levels: an empty image's noise is not blown up further than this
DARK_GAMMA = 0.6  # exponent that lifts dim nuclei beside bright ones, where the background is dark


@dataclass(frozen=True)
class View:
    """An image as a network sees it before :func:`to_network`: ``pixels`` uint8 (H, W, 3), and the
    :class:`~nucleus_course.data.canonical.Canonical` behind them, None for the input ``colour``."""

    pixels: np.ndarray
    canonical: Canonical | None = None


def see(image, config, polarity="auto", input=None):
    """The :class:`View` of an image that a model's config asks for.

    Args:
        image: any that :func:`~nucleus_course.data.read.to_rgb8` takes, as stored: raw values, not 8 bits. A
            :class:`View` comes back as it is.
        config: a model's config.
        polarity: for the canonical input, see :func:`~nucleus_course.data.canonical.canonical`.
        input: "canonical" or "colour" instead of the config's.

    Raises:
        UserError: not an image, an unknown input, or a polarity for an input that has none.
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

    ``mean`` leaves it as it is. ``percentile`` maps the 0.5th to 99.95th percentile of brightness to
    0..255, the same map for all channels, so that dim and bright exposures look alike and hue survives.
    Where the median ends up dark (fluorescence), values are raised to the power of 0.6 after that.
    An image with something in one channel only (DAPI saved as blue on black) is that channel in grey.
    """
    if config.normalization != "percentile":
        return image
    import cv2

    image = _grey_if_one_channel(image)
    # 766 sums of three channels instead of as many brightnesses as pixels: a tenth of the time.
    total = image[..., 0].astype("uint16") + image[..., 1] + image[..., 2]
    counts = np.bincount(total.ravel(), minlength=3 * 255 + 1)
    low, middle, high = count_percentiles(counts, (LOW_PERCENTILE, 50.0, HIGH_PERCENTILE)) / 3.0
    table = np.clip((np.arange(256) - low) / max(high - low, MIN_CONTRAST), 0.0, 1.0)
    if table[int(middle)] < 0.5:
        table = table**DARK_GAMMA
    return cv2.LUT(image, np.rint(255.0 * table).astype("uint8"))


def _grey_if_one_channel(image):
    for seen in (image[::8, ::8], image):  # a glance tells most images
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
