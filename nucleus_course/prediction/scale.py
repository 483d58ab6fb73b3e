"""Images at another magnification than the network learned: resized for it, with results at their own size.

``Thresholds.diameters`` says which nuclei a network knows: the smallest, best and largest diameter in image
pixels. If a diameter is given, the image is resized so that nuclei of that diameter get the best one. With
"auto", a first pass over the image at its own size measures them, and a second one, of the image resized, counts
only where the network is surer of it.
"""

import dataclasses
import math

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.prediction.detections import Detections

AUTO, NONE = "auto", "none"
LARGEST = 16.0  # largest factor by which an image is enlarged or reduced


def check_diameter(diameter):
    """A diameter as given: a number of pixels, or its text; "auto"; "none" or None.

    Raises:
        UserError: anything else.

    >>> check_diameter("30"), check_diameter("auto"), check_diameter(None)
    (30.0, 'auto', None)
    """
    if diameter in (None, AUTO, NONE):
        return None if diameter == NONE else diameter
    try:
        value = float(diameter)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"diameter {diameter!r}: pixels above 0 are expected, or auto, or none")
    return value


def median_diameter(found):
    """The median diameter (of the disc of equal area) of the confident detections, image pixels; 0 without any."""
    areas = found.confident().areas
    return float(2.0 * np.sqrt(np.median(areas) / np.pi)) if len(areas) else 0.0


def at_size(found, shape):
    """:class:`~nucleus_course.prediction.detections.Detections` of a resized picture, in pixels of the original (H, W).

    ``thresholds.min_area`` is converted as well.
    """
    if (found.height, found.width) == tuple(shape):
        return found
    step = np.float32([shape[0] / found.height, shape[1] / found.width] * 2)
    least = found.thresholds.min_area
    if least:
        least = max(1, round(least * float(step[0] * step[1])))
    thresholds = dataclasses.replace(found.thresholds, min_area=least)
    boxes, grids = found.boxes * step, found.mask_boxes * step
    return Detections(boxes, found.scores, found.mask_probs, grids, *shape, thresholds)


def factor_for(diameter, thresholds):
    """The factor, 1/16 to 16, by which to resize an image whose nuclei have this median diameter.

    Raises:
        UserError: the model does not say which diameter it knows best.
    """
    if not thresholds.diameters:
        raise UserError(
            f"diameter {diameter:g}: these weights do not say which diameter they know best; write "
            '"diameters": [smallest, best, largest] in image pixels into their thresholds.json'
        )
    return float(np.clip(thresholds.diameters[1] / diameter, 1.0 / LARGEST, LARGEST))


def look_at_scale(look, diameter, thresholds):
    """Detect at the scale that suits the network.

    Args:
        look: a function factor -> Detections in image pixels, of the image resized by that factor.
        diameter: as :func:`check_diameter` takes it.
        thresholds: :class:`~nucleus_course.config.Thresholds` with its ``diameters``.

    Returns:
        Detections, with the factor as their ``scale``.
    """
    diameter = check_diameter(diameter)
    if diameter is None or (diameter == AUTO and not thresholds.diameters):
        return look(1.0)
    if diameter == AUTO:
        return settle(look, thresholds)
    return _at(look, factor_for(diameter, thresholds))


def _at(look, factor):
    found = look(factor)
    found.scale = factor
    return found


def settle(look, thresholds):
    """Detections with ``diameter="auto"``: at the image's own size if its nuclei have a size that the network
    knows, otherwise resized to the best one, unless the network is less sure of what it then finds."""
    low, _, high = thresholds.diameters
    found = look(1.0)
    for _ in range(2):
        diameter = median_diameter(found)
        if not diameter or low <= diameter * found.scale <= high:
            break
        other = _at(look, _stepped(factor_for(diameter, thresholds)))
        if mean_score(other) < mean_score(found):
            break
        found = other
    return found


def _stepped(factor):
    """The nearest of four steps an octave: images of one size then need few input sizes, each compiled once."""
    return 2.0 ** (round(4.0 * math.log2(factor)) / 4.0)


def mean_score(found):
    """How sure the network is: the mean score of the confident detections; 0 without any."""
    scores = found.confident().scores
    return float(np.mean(scores)) if len(scores) else 0.0
