"""Groups of images that show nearly the same picture.

BBBC038 cuts several images out of one field of view or one slide, so that a random split has
close relatives on both sides. The rule, on pixels alone:

* Two images are compared only if they have the same size and the same look (image type).
* The *signature* of an image is its overall colour and contrast (the quantiles of each channel)
  and its texture (the same of differences over 1, 2, 4 and 8 pixels): 60 numbers. Images of one
  slide and exposure agree in it although they show other nuclei.
* Images with the same pixels, or whose signatures differ by at most ``tolerance`` grey levels on
  average, are linked; groups are the connected components of the links.

The result is deterministic and does not depend on the order of the images.
"""

import numpy as np

TOLERANCE = 1.0  # grey levels, mean absolute difference
QUANTILES = (2, 25, 50, 75, 98)
STEPS = (1, 2, 4, 8)


def near_duplicate_groups(dataset, tolerance=TOLERANCE):
    """Groups of near-duplicates in a :class:`~nucleus_course.data.Dataset`.

    Returns a list of tuples of ids: every id is in exactly one group, most groups have one member,
    groups and members are in the order of the ids.
    """
    ids = sorted(dataset.ids)
    signatures = {image_id: signature(dataset[image_id].image) for image_id in ids}
    families = {}
    for image_id in ids:
        families.setdefault((dataset.sizes[image_id], dataset.types[image_id]), []).append(image_id)
    groups = []
    for family in families.values():
        groups += _linked(family, np.stack([signatures[image_id] for image_id in family]), tolerance)
    return sorted(groups)


def signature(image):
    """The 75 numbers (float64) that describe the colours and texture of an image uint8 (H, W, 3)."""
    pixels = image.astype(np.int16)
    parts = [np.percentile(pixels.reshape(-1, 3), QUANTILES, axis=0)]
    for step in STEPS:
        change = np.abs(pixels[step:, step:] - pixels[:-step, :-step]).reshape(-1, 3)
        parts.append(np.percentile(change, QUANTILES, axis=0))
    return np.concatenate(parts).ravel()


def _linked(ids, signatures, tolerance):
    """Connected components under mean absolute difference <= tolerance, as tuples of ids."""
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import cdist

    distance = cdist(signatures, signatures, "cityblock") / signatures.shape[1]
    _, component = connected_components(distance <= tolerance, directed=False)
    members = {}
    for image_id, number in zip(ids, component):
        members.setdefault(number, []).append(image_id)
    return [tuple(group) for group in members.values()]
