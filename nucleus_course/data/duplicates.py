"""Groups of images that show nearly the same picture.

BBBC038's images were cut out of larger pictures, most often the four quarters of one, and their file
names are random. So only the pixels show that a training image and a validation image are neighbours
in one specimen, one exposure, even one nucleus:

* **Tiles of one picture.** If B lies to the right of (or below) A, the grey profile along A's last column
  continues in B's first. Two borders match if their profiles, smoothed over five pixels, correlate
  at 0.9 or more, the step between them is at most 1.25 times the step between neighbouring columns
  inside A and B, and each is the other's best match. Borders without structure (standard deviation
  below half a grey level) match nothing. On stage1_train true neighbours have a median correlation of
  0.98 and a median step of 1.0 times that inside; chance matches have much larger steps.
* **The same picture again** (a stack, a time series): reduced to 32x32, two images correlate at 0.9
  or more.

Only images of the same size are compared. Groups are the connected components of these links; the
result does not depend on the order of the images. On stage1_train there are 278 groups: 143 single
images and 521 with relatives, including 88 groups of four; 53 of the 67 validation images have a
relative in the training split.
"""

import numpy as np

CORRELATION = 0.9
STEP = 1.25
STRUCTURE = 0.5  # grey levels
SMOOTH = 5  # pixels
THUMBNAIL = 32  # pixels a side


def near_duplicate_groups(dataset):
    """Groups of near-duplicates in a :class:`~nucleus_course.data.Dataset`.

    Returns a list of tuples of ids: every id is in exactly one group, images without a relative
    are groups of one; groups and their members are in the order of the ids.
    """
    from scipy.sparse.csgraph import connected_components

    families = {}
    for image_id in sorted(dataset.ids):
        families.setdefault(dataset.sizes[image_id], []).append(image_id)
    groups = []
    for ids in families.values():
        _, component = connected_components(_links(dataset, ids), directed=False)
        members = {}
        for image_id, number in zip(ids, component):
            members.setdefault(number, []).append(image_id)
        groups += [tuple(group) for group in members.values()]
    return sorted(groups)


def _links(dataset, ids):
    """Which of the images, all of one size, are linked: bool (n, n)."""
    import cv2

    sides = {
        name: []
        for name in ("left", "left2", "right2", "right", "top", "top2", "bottom2", "bottom")
    }
    thumbnails = []
    for image_id in ids:
        image = dataset[image_id].image
        for low, high, array in (
            ("left", "right", image.transpose(1, 0, 2)),
            ("top", "bottom", image),
        ):
            inner = min(1, len(array) - 1)
            for name, line in ((low, 0), (low + "2", inner), (high + "2", -1 - inner), (high, -1)):
                sides[name].append(array[line].mean(axis=1, dtype=np.float32))
        small = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        thumbnails.append(small.mean(axis=2, dtype=np.float32).ravel())
    sides = {name: cv2.blur(np.stack(rows), (SMOOTH, 1)) for name, rows in sides.items()}
    linked = correlations(np.stack(thumbnails), np.stack(thumbnails)) >= CORRELATION
    linked |= continues(sides["right2"], sides["right"], sides["left"], sides["left2"])
    linked |= continues(sides["bottom2"], sides["bottom"], sides["top"], sides["top2"])
    return linked


def continues(before, last, first, after):
    """Which image continues in which: bool (n, n), [a, b] if b follows a.

    All four are float32 (n, length): the last two lines of each image, in order, and its first two.
    """
    match = correlations(last, first)
    np.fill_diagonal(match, -1)
    best = (match == match.max(axis=1, keepdims=True)) & (match == match.max(axis=0, keepdims=True))
    inside = np.abs(last - before).mean(axis=1), np.abs(first - after).mean(axis=1)
    result = np.zeros(match.shape, bool)
    for a, b in np.argwhere(best & (match >= CORRELATION)):
        step = np.abs(last[a] - first[b]).mean()
        result[a, b] = step <= STEP * max((inside[0][a] + inside[1][b]) / 2, 0.25)
    return result


def correlations(one, other):
    """Pearson correlation of each row of one (n, k) with each of other (m, k): float32 (n, m); 0 for
    rows without structure."""
    one = one - one.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    spread = np.sqrt((one**2).mean(axis=1)), np.sqrt((other**2).mean(axis=1))
    flat = (spread[0] < STRUCTURE)[:, None] | (spread[1] < STRUCTURE)[None, :]
    scale = np.maximum(spread[0][:, None] * spread[1][None, :], 1e-6) * one.shape[1]
    return np.where(flat, 0, one @ other.T / scale).astype(np.float32)
