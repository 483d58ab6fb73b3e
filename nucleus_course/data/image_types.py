"""The five looks of BBBC038's images, told apart by a rule on the pixels alone."""

import numpy as np

IMAGE_TYPES = (
    "small fluorescent",
    "large fluorescent",
    "purple stain",
    "pink-and-purple stain",
    "grey tissue",
)


def image_type(image):
    """Which of :data:`IMAGE_TYPES` an image uint8 (H, W, 3) looks like."""
    small = np.asarray(image)[::4, ::4].reshape(-1, 3).astype(np.float32)
    colour = (small.max(axis=1) - small.min(axis=1)).mean()
    background = np.median(small.mean(axis=1))
    if colour < 4:
        if background > 100:
            return "grey tissue"
        return "large fluorescent" if image.shape[0] >= 500 else "small fluorescent"
    if background < 60:
        return "small fluorescent"
    return "purple stain" if background > 200 else "pink-and-purple stain"
