"""Degradations by microscope, camera and file format, as augmentation of crops uint8 (H, W, 3).

Uneven light and haze come before blur and noise, sharpening after blur, JPEG last, as in reality. Each change has
its own generator, so that switching one on does not change another.
"""

import numpy as np

JPEG_QUALITY = (25, 90)
KNOTS = (2, 12)  # knots along a side of the crop, between which haze varies


def uneven_light(image, config, random):
    """Brightness that falls off over the crop: a smooth factor within about 1 +- ``config.shading``."""
    draws = random.uniform(-1.0, 1.0, (3, 3)).astype(np.float32)
    strength = config.shading * random.random()
    if not strength:
        return image
    return _apply(image, lambda values: values * (1.0 + strength * _field(draws, image.shape)))


def haze(image, config, random):
    """Light from out of focus: a smooth random pattern of up to ``config.haze`` of white, added like a second
    exposure; half of the crops have none."""
    knots = int(random.integers(KNOTS[0], KNOTS[1] + 1))
    draws = random.random((knots, knots), np.float32)
    strength = config.haze * max(0.0, 2.0 * random.random() - 1.0)
    if not strength:
        return image
    veil = strength * np.clip(_field(draws, image.shape), 0.0, 1.0)
    return _apply(image, lambda values: values + (255.0 - values) * veil)


def sharpen(image, config, random):
    """Unsharp masking by up to ``config.sharpen`` times the detail, on a quarter of the crops."""
    import cv2

    amount, chance = config.sharpen * random.random(), random.random()
    if not amount or chance >= 0.25:
        return image
    soft = cv2.GaussianBlur(image, (0, 0), 1.0 + random.random())
    return cv2.addWeighted(image, 1.0 + amount, soft, -amount, 0.0)


def jpeg(image, config, random):
    """The crop after JPEG compression of quality 25 to 90, with a probability of ``config.jpeg``."""
    import cv2

    chance, quality = random.random(), int(random.integers(*JPEG_QUALITY))
    if chance >= config.jpeg:
        return image
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def _field(knots, shape):
    """Knots (k, k) interpolated smoothly to an image's shape: float32 (H, W, 1)."""
    import cv2

    return cv2.resize(knots, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)[..., None]


def _apply(image, change):
    return np.clip(np.rint(change(image.astype(np.float32))), 0, 255).astype(np.uint8)
