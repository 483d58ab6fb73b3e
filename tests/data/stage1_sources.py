"""The rule that finds the source of each image of stage1_train from its pixels; it wrote splits/sources.csv.

1. Size in pixels and look (:mod:`~nucleus_course.data.image_types`) are enough for eleven of the fifteen sources.
2. The black level (5th percentile of brightness) separates two cameras of the same image size: below 8 grey levels
   or not.
3. Dark 256 x 256 images whose nuclei are large compared with the background noise are the clumps.
   The measure is the estimated diameter of the nuclei (pixels) over the mean absolute difference between the
   darkest 30% of pixels and the image smoothed by a Gaussian of one pixel (grey levels): above 52 it is a clump.
4. Stained images with more red than blue (medians of the channels) are the tissue with a red counterstain. Of the
   others, the background is pale where green is less than 32 grey levels below blue, and otherwise lilac.
5. Near-duplicates (:mod:`~nucleus_course.data.duplicates`) stay together: a group takes its most frequent
   source, the first by name in a tie.
"""

from collections import Counter

import numpy as np

from nucleus_course.data.image_types import nucleus_diameter

BLACK_LEVEL = 8.0  # grey levels, of the 5th percentile
CLUMPED = 52.0  # pixels of diameter per grey level of background noise
PALE = 32.0  # grey levels, of blue's median above green's

_BY_SIZE = {
    (260, 347): "crowd-260x347",
    (360, 360): "large-360",
    (512, 640): "noisy-512x640",
    (603, 1272): "flies-603x1272",
    (1024, 1024): "smears-1024",
    (1040, 1388): "single-1040x1388",
}


def find_sources(dataset):
    """{id: source} of a :class:`~nucleus_course.data.Dataset`, all of stage1_train."""
    alone = {record.id: _source(record.image, record.type) for record in dataset}
    members = {}
    for image_id, group in dataset.groups.items():
        members.setdefault(group, []).append(image_id)
    found = {}
    for ids in members.values():
        votes = Counter(alone[image_id] for image_id in ids)
        name = min(votes, key=lambda n: (-votes[n], n))
        found.update(dict.fromkeys(ids, name))
    return {image_id: found[image_id] for image_id in dataset.ids}


def _source(image, kind):
    """The source of one image uint8 (H, W, 3) of a type; None for a size that no source has."""
    size = image.shape[:2]
    if size in _BY_SIZE:
        return _BY_SIZE[size]
    grey = image.mean(axis=2, dtype=np.float32)
    if size == (256, 320):
        if not kind.endswith("stain"):
            return "tissue-256x320"
        red, green, blue = np.median(image.reshape(-1, 3), axis=0)
        if red > blue:
            return "red-256x320"
        return "pale-256x320" if blue - green < PALE else "lilac-256x320"
    raised = np.percentile(grey, 5) >= BLACK_LEVEL
    if size == (520, 696):
        return "raised-520x696" if raised else "screen-520x696"
    if size != (256, 256):
        return None
    if raised:
        return "mixed-256"
    return "clumps-256" if _clumpedness(image[..., 0]) > CLUMPED else "spindles-256"


def _clumpedness(grey):
    """Estimated nucleus diameter over the noise of the darkest 30% of an image uint8 (H, W)."""
    import cv2

    values = grey.astype(np.float32)
    dark = values <= np.percentile(values, 30)
    noise = np.abs(values - cv2.GaussianBlur(values, (0, 0), 1.0))[dark].mean()
    return nucleus_diameter(grey) / max(float(noise), 1e-3)
