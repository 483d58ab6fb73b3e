"""One normal form for every image: nuclei bright on a dark background, in grey, whatever the stain and the camera.

Laboratories differ in stains, cameras and exposures. :func:`canonical` removes these differences and keeps the shapes:
it normalises polarity, colour and range. Training and prediction use this one function. It works on the values as
stored, of any type and depth.

1. **Polarity.** Are nuclei brighter or darker than their surroundings? Four measures vote, each of which changes sign
   if the image is inverted. Three of them, at three scales, compare upward and downward bulges of the brightness (both
   principal curvatures of one sign): nuclei are convex, the gaps between them are not. One tests whether texture grows
   with brightness, as nuclei have more of it. None depends on the share of the field that is bright, so a field full
   of nuclei is no problem. In a colour image a fifth vote counts as much as the others together: dye absorbs light, so
   darker parts of a stained section are more colourful; in fluorescence, brighter parts are.
2. **Grey.** Stained tissue (colour, dark nuclei): mostly the red channel, where haematoxylin is dark and eosin
   is not. Other images: the mean of the channels, or the only channel with a signal.
3. **Range.** After a 3 x 3 median, which removes hot pixels, the 0.5th percentile becomes 0 and the 99.95th 1; brighter
   pixels in dark surroundings are replaced by their median. Burnt-in scale bars are ignored. The range is at least six
   standard deviations of the noise, so that noise is not amplified.
4. **Power.** If the median is then below a quarter, values are raised to the power that would bring it there, but at
   least 0.6: this lifts dim nuclei beside bright ones.
"""

from dataclasses import dataclass

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.read import plain_channels

POLARITIES = ("auto", "bright", "dark")
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.95
STAIN_WEIGHTS = (0.6, 0.3, 0.1)  # of red, green and blue in stained tissue
# Further weights, used in training.
TRAINING_STAINS = ((1.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3), (0.4, 0.6, 0.0))
COLOURFUL = 0.03  # least mean of largest minus smallest channel, as a share of the image's range
NOISE_RANGE = 6.0  # least range, in standard deviations of the noise
SPIKE, SPIKED = 3.0, 0.03  # hot pixels exceed this many ranges; largest share of such pixels
QUANTA = 8.0  # least range of an integer image, in steps
LEAST_POWER, LIFTED = 0.6, 0.25
BAR = (3, 20)  # pixels: the smallest scale bar
HUGE = 1e38  # float32, in which images are processed, ends soon above
SIDE = 256  # pixels: larger images are reduced to it for the votes


@dataclass(frozen=True, repr=False)
class Canonical:
    """An image in canonical form, and how it was obtained.

    Attributes:
        image: uint8 (H, W), nuclei bright.
        polarity: "bright" or "dark": how nuclei look in the image as stored.
        stain: whether it was taken for stained tissue.
        low, high: the grey values, in the image's own units, that became 0 and 255; ``low`` is the larger one if
            nuclei are dark.
        evidence: the mean vote in [-1, 1], above 0 for bright nuclei; near 0 the decision is unsure.
        channel: the only channel used of a colour image; None if all were used, or if it is grey.
        power: the exponent applied to the values, 1 for none.
    """

    image: np.ndarray
    polarity: str
    stain: bool
    low: float
    high: float
    evidence: float
    channel: int | None = None
    power: float = 1.0

    def __repr__(self):
        height, width = self.image.shape
        look = f"nuclei {self.polarity}" + (", stained tissue" if self.stain else "")
        return f"Canonical({height}x{width}, {look}, {self.low:g} to 0 and {self.high:g} to 255, evidence {self.evidence:+.2f})"

    @property
    def rgb(self):
        """The image as uint8 (H, W, 3): a read-only view with three equal channels."""
        return np.broadcast_to(self.image[..., None], (*self.image.shape, 3))


def canonical(image, polarity="auto", stain_weights=STAIN_WEIGHTS):
    """An image's :class:`Canonical` form.

    Args:
        image: (H, W), (H, W, 1 to 4) or (3|4, H, W), of any integer, float or bool type; alpha is ignored.
            NaN, infinite values and those beyond 1e38 count as the lowest.
        polarity: "auto", or "bright" or "dark" if you know how nuclei look in it.
        stain_weights: shares of red, green and blue in stained tissue.

    Raises:
        UserError: not an image, hardly a value but NaN or infinite ones, or an unknown polarity.
    """
    if polarity not in POLARITIES:
        raise UserError(f"polarity {polarity!r}: choose one of {', '.join(POLARITIES)}")
    values, step, offset, channel = _values(image)
    colour = _colour(values)
    grey = values.mean(axis=2) if values.ndim == 3 else values
    whole = step > 0 and values.ndim == 2
    evidence = _evidence(grey, colour, whole)
    chosen = polarity if polarity != "auto" else "bright" if evidence >= 0 else "dark"
    stain = colour is not None and chosen == "dark"
    if stain:
        grey = values @ np.asarray(stain_weights, np.float32)
    sign = 1.0 if chosen == "bright" else -1.0
    grey = np.float32(sign) * grey
    low, high, grey = _range(grey, step, whole)
    middle = (float(_percentiles(grey, (50.0,), whole)[0]) - low) / (high - low)
    power = 1.0
    if middle < LIFTED:
        power = LEAST_POWER
        if middle > 0:
            power = max(LEAST_POWER, float(np.log(LIFTED) / np.log(middle)))
    pixels = _to_grey_levels(grey, low, high, power)
    ends = offset + sign * low, offset + sign * high
    return Canonical(pixels, chosen, stain, *ends, evidence, channel, power)


def canonical_piece(image, like, stain_weights=STAIN_WEIGHTS):
    """A piece of an image, normalised like the whole: uint8 (h, w), nuclei bright.

    Args:
        image: as for :func:`canonical`: part of a larger image, of the same type.
        like: :class:`Canonical` of the whole image, or of a sample of it.
        stain_weights: as for :func:`canonical`.

    The pixels equal those of the whole image, except hot pixels at the cut:

    >>> import numpy as np
    >>> from nucleus_course.data.canonical import canonical, canonical_piece
    >>> image = np.random.default_rng(0).integers(0, 4000, (64, 64)).astype("uint16")
    >>> whole = canonical(image)
    >>> bool((canonical_piece(image[8:40, :32], whole) == whole.image[8:40, :32])[1:-1, 1:-1].all())
    True
    """
    import cv2

    image = _sound(plain_channels(image), min(like.low, like.high))
    if image.ndim == 3 and like.channel is not None:
        image = image[..., like.channel]
    offset = like.low if image.dtype.itemsize > 4 else 0.0
    values = np.ascontiguousarray((image - offset if offset else image).astype(np.float32))
    if values.ndim == 3:
        weights = np.asarray(stain_weights, np.float32)
        values = values @ weights if like.stain else values.mean(axis=2)
    sign = np.float32(1.0 if like.polarity == "bright" else -1.0)
    grey = sign * values
    low, high = (float(sign) * (end - offset) for end in (like.low, like.high))
    plain = cv2.medianBlur(grey, 3)
    grey = np.where((grey > high) & (plain < 0.5 * (low + high)), plain, grey)
    return _to_grey_levels(grey, low, high, like.power)


def _to_grey_levels(grey, low, high, power):
    """Apply range and power: float32 (H, W) -> uint8."""
    import cv2

    scaled = np.clip((grey - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    if power != 1.0:
        scaled = cv2.pow(scaled, power)
    return np.rint(255.0 * scaled).astype(np.uint8)


def _values(image):
    """The values as float32 (H, W) or (H, W, 3), one channel if all are equal or only one has a signal; the step
    between values (1 for integers, 0 for floats and bool); the offset that was subtracted; and the channel, or None."""
    image = plain_channels(image)
    if image.dtype.kind not in "buif":
        raise UserError(f"the image must hold numbers, not {image.dtype}")
    step = 0.0 if image.dtype.kind in "bf" else 1.0
    image = _sound(image)
    channel = _only_channel(image) if image.ndim == 3 else None
    image = image if channel is None else image[..., channel]
    # Far from zero, float32 is too coarse for values of 64 bits.
    offset = image.min() if image.dtype.itemsize > 4 else 0
    values = (image - offset if offset else image).astype(np.float32)
    return np.ascontiguousarray(values), step, float(offset), channel


def _sound(image, lowest=None):
    """The image with NaN, infinite and enormous values replaced: by ``lowest``, or by its own lowest value."""
    if image.dtype.kind != "f":
        return image
    most = min(HUGE, float(np.finfo(image.dtype).max))
    if image.min() >= -most and image.max() <= most:
        return image
    sound = np.abs(image) <= most
    if lowest is None and np.count_nonzero(sound) < 2:
        raise UserError("the image holds hardly a value that is not NaN or infinite")
    image = image.copy()
    image[~sound] = image[sound].min() if lowest is None else lowest
    return image


def _only_channel(image):
    """The one channel of (H, W, 3) that suffices, because all three are equal or the others' ranges are less than an
    eighth of its own; else None."""
    if all(
        np.array_equal(part[..., 0], part[..., c])
        for part in (image[::16, ::16], image)
        for c in (1, 2)
    ):
        return 0
    spans = np.array([float(image[..., c].max()) - float(image[..., c].min()) for c in range(3)])
    informative = np.flatnonzero(spans >= max(spans.max() / 8.0, 1e-30))
    return int(informative[0]) if len(informative) == 1 else None


def _percentiles(values, wanted, whole):
    """``np.percentile``; whole numbers of a small range are counted, in a fifth of the time."""
    low = float(values.min())
    if not whole or float(values.max()) - low > 65535:
        return np.percentile(values, wanted)
    return low + count_percentiles(
        np.bincount((values - np.float32(low)).astype(np.int32).ravel()), wanted
    )


def count_percentiles(counts, wanted):
    """``np.percentile`` of whole numbers, of which ``counts[v]`` have the value v."""
    ends = np.cumsum(counts)
    place = np.asarray(wanted) / 100.0 * (ends[-1] - 1)
    low = np.searchsorted(ends, np.floor(place), side="right")
    high = np.searchsorted(ends, np.ceil(place), side="right")
    return low + (high - low) * (place - np.floor(place))


def _colour(values):
    """Chroma (H, W), largest minus smallest channel; None for an image in grey."""
    if values.ndim == 2:
        return None
    chroma = values.max(axis=2) - values.min(axis=2)
    low, high = np.percentile(values[::4, ::4], (0.5, 99.5))
    return chroma if chroma.mean() >= COLOURFUL * max(high - low, 1e-30) else None


def _evidence(grey, chroma, whole):
    """The mean vote in [-1, 1]; above 0 nuclei are bright. Inverting the image changes its sign."""
    import cv2

    scale = SIDE / max(grey.shape)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in grey.shape[::-1])
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        chroma = None if chroma is None else cv2.resize(chroma, size, interpolation=cv2.INTER_AREA)
    plain = cv2.medianBlur(grey, 3)
    low, high = _percentiles(plain, (0.5, 99.5), whole and scale >= 1)
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-30):
        return 0.0
    plain = np.clip((plain - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    votes, level, smooth = [], plain, None
    for _ in range(3):  # Gaussians of 2, 4 and 8 pixels of the image
        blurred = cv2.GaussianBlur(level, (0, 0), 2.0)
        smooth = blurred if smooth is None else smooth
        votes.append(_bulge(blurred))
        level = (
            cv2.resize(blurred, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            if min(level.shape) >= 16
            else blurred
        )
    texture = np.sqrt(np.maximum(cv2.blur((plain - smooth) ** 2, (13, 13)), 0.0))
    votes.append(_correlation(cv2.blur(smooth, (9, 9)), texture))
    mean = float(np.mean(votes))
    return mean if chroma is None else 0.5 * (mean + _correlation(grey, chroma))


def _bulge(smooth):
    """Upward minus downward bulges of a smooth image over their sum, in [-1, 1], weighted by the square root of the
    Gaussian curvature."""
    import cv2

    across, down, mixed = (
        cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((2, 0), (0, 2), (1, 1))
    )
    weight = np.sqrt(np.maximum(across * down - mixed * mixed, 0.0))
    up, total = float(weight[across + down < 0].sum()), float(weight.sum())
    return (2.0 * up - total) / total if total > 0 else 0.0


def _correlation(one, other):
    """Pearson correlation of two arrays of one shape; 0 if one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale > 1e-12 else 0.0


def _range(grey, step, whole):
    """The values that become 0 and 1 in an image with bright nuclei, and the image without its hot pixels."""
    import cv2

    plain = cv2.medianBlur(grey, 3)
    wider = cv2.medianBlur(grey, 5) if grey.dtype == np.float32 else plain
    spikes = grey - plain > SPIKE * max(float(np.ptp(wider)), 1e-30)
    if np.count_nonzero(spikes) > SPIKED * grey.size:
        # So many that some are adjacent, such as negative values that wrapped to large ones.
        grey = np.where(grey - wider > SPIKE * max(float(np.ptp(wider)), 1e-30), wider, grey)
        plain = cv2.medianBlur(grey, 3)
    burnt = _burnt_in(plain)
    low, high = _percentiles(
        plain if burnt is None else plain[~burnt], (LOW_PERCENTILE, HIGH_PERCENTILE), whole
    )
    least = max(NOISE_RANGE * _noise(grey), QUANTA * step, 1e-6 * max(abs(low), abs(high)), 1e-30)
    low, high = float(low), float(max(high, low + least))
    hot = (grey > high) & (plain < 0.5 * (low + high))
    return low, high, np.where(hot, plain, grey) if hot.any() else grey


def _noise(grey):
    """Standard deviation of the pixel noise: the median response to a filter that planes and edges hardly excite
    (Immerkaer 1996), so that a few hot pixels do not matter."""
    import cv2

    if min(grey.shape) < 3:
        return 0.0
    mask = np.float32([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    answer = np.abs(cv2.filter2D(grey, cv2.CV_32F, mask)[1:-1, 1:-1])
    return float(np.median(answer)) / (6 * 0.6745)


def _burnt_in(grey):
    """Bool (H, W), the pixels of scale bars and their lettering; None if there are none.

    A bar is a rectangle filled with the image's largest or smallest value: at least 3 x 20 pixels, five times as
    long as high, and at least 95% of its bounding box. Saturated nuclei are no rectangles.
    """
    import cv2

    found = None
    for extreme in (grey.max(), grey.min()):
        same = grey == extreme
        # Too few pixels for a bar; or so many that they are background or saturation.
        if not BAR[0] * BAR[1] <= np.count_nonzero(same) <= 0.05 * same.size:
            continue
        _, _, stats, _ = cv2.connectedComponentsWithStats(same.astype(np.uint8), connectivity=4)
        width, height, area = stats[1:, 2], stats[1:, 3], stats[1:, 4]
        long, short = np.maximum(width, height), np.minimum(width, height)
        if (
            (short >= BAR[0])
            & (long >= BAR[1])
            & (long >= 5 * short)
            & (area >= 0.95 * width * height)
        ).any():
            near = cv2.dilate(same.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            found = near if found is None else found | near
    return found
