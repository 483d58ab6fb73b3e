"""The five types of BBBC038's images, by a rule on the pixels alone.

The names follow Caicedo et al. (Nature Methods 2019). Their assignment of single images is not
part of the data set, so this rule is our own:

1. Mean chroma (largest minus smallest channel) below 4 grey levels, or a dark background (median
   below 100): a grey image. With a light background it is **grey tissue**; with a dark one it is
   fluorescence, **large** if the mean nucleus is at least 30 pixels across, else **small**.
2. Anything else is stained tissue. The stain's colour is measured by the optical density of the
   darkest tenth over the background: a violet stain absorbs little blue (blue/red of 0.11 to
   0.19 on the images of stage1_train), a pink counterstain or a magenta nucleus far more (0.26
   and up). From 0.22 on it is **pink-and-purple stain**, below it **purple stain**.

The size of the nuclei is estimated without truth: a top-hat removes everything wider than 65 pixels,
Otsu's threshold gives the foreground, and its mean chord along rows and columns, times 4/pi, is the
diameter of the disc with that mean chord. Compared with the median annotated diameter, this places 11
of the 541 fluorescent images of stage1_train on the other side of 30 pixels. On that set the rule
gives 410 small fluorescent, 131 large fluorescent, 62 purple stain, 45 pink-and-purple stain and
16 grey tissue.
"""

import numpy as np

from nucleus_course.config import IMAGE_TYPES

__all__ = ["IMAGE_TYPES", "image_type", "nucleus_diameter", "run_lengths", "stain_blue_to_red"]

GREY_CHROMA = 4.0
DARK = 100.0
LARGE_DIAMETER = 30.0  # pixels
BLUE_TO_RED = 0.22  # of the stain's optical density


def image_type(image):
    """Which of :data:`IMAGE_TYPES` an image uint8 (H, W, 3) looks like."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
    chroma = float((image.max(axis=2) - image.min(axis=2)).mean())
    brightness = image.max(axis=2) if chroma >= GREY_CHROMA else image[..., 0]
    dark = float(np.median(brightness)) < DARK
    if chroma < GREY_CHROMA and not dark:
        return "grey tissue"
    if dark:
        return (
            "large fluorescent"
            if nucleus_diameter(brightness) >= LARGE_DIAMETER
            else "small fluorescent"
        )
    return "pink-and-purple stain" if stain_blue_to_red(image) >= BLUE_TO_RED else "purple stain"


def nucleus_diameter(brightness):
    """Estimated mean diameter in pixels of the bright blobs of an image uint8 (H, W); 0 if none."""
    import cv2

    smooth = cv2.GaussianBlur(np.ascontiguousarray(brightness), (0, 0), 1.5)
    blobs = cv2.morphologyEx(smooth, cv2.MORPH_TOPHAT, np.ones((65, 65), np.uint8))
    _, mask = cv2.threshold(blobs, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    chords = np.concatenate([run_lengths(mask > 0), run_lengths((mask > 0).T)])
    chords = chords[chords >= 3]
    return float(chords.mean()) * 4 / np.pi if chords.size else 0.0


def run_lengths(mask):
    """Lengths of all runs of True along the rows of a bool array (H, W), row by row."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8).ravel())
    return np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)


def stain_blue_to_red(image):
    """Blue over red optical density of the darkest tenth of an image uint8 (H, W, 3), relative to the
    median of its brightest two fifths."""
    values = image.reshape(-1, 3).astype(np.float32) + 1
    grey = values.mean(axis=1)
    low, high = np.percentile(grey, [10, 60])
    background = np.median(values[grey >= high], axis=0)
    density = np.log(background / values[grey <= low].mean(axis=0))
    return float(density[2] / max(density[0], 1e-3))
