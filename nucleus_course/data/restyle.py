"""The nuclei of a crop in another look, as augmentation: the outlines stay, brightness and texture are drawn anew.

A network that has met fifteen experiments knows fifteen looks. Crops in a random look, which no microscope made, teach
it that shape matters and look does not, as in SynthSeg (Billot et al. 2023, https://doi.org/10.1016/j.media.2023.102789).
Made for canonical grey, where nuclei are bright and the ground is dark.
"""

import numpy as np


def restyle(image, labels, probability, random):
    """The crop in another look, or unchanged.

    Half of the changed crops are painted from the label map alone. The others keep their texture, and each nucleus
    becomes brighter or dimmer.

    Args:
        image: uint8 (H, W, 3), three equal channels.
        labels: int32 (H, W), 0 for background.
        probability: of a change, 0 to 1.
        random: a NumPy generator.

    Returns:
        uint8 (H, W, 3), three equal channels.
    """
    chance, kind = random.random(2)
    if chance >= probability:
        return image
    ids, places = np.unique(labels, return_inverse=True)
    places = places.reshape(labels.shape) + (ids[0] > 0)  # 0 is background even if there is none
    change = _paint if kind < 0.5 else _regain
    grey = np.clip(np.rint(change(image[..., 0], places, random)), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _regain(grey, places, random):
    """Each nucleus's contrast with the ground, times a factor of its own from 0.3 to 2."""
    ground = float(np.median(grey[places == 0])) if (places == 0).any() else float(grey.min())
    spread = random.uniform(0.2, 0.8)
    gains = np.exp(np.clip(random.normal(0, spread, places.max() + 1), -1.2, 0.7))
    gains[0] = random.uniform(0.7, 1.3)
    return ground + _blur(gains[places], 0.7) * (grey.astype(np.float32) - ground)


def _paint(grey, places, random):
    """Ground, cell bodies, debris and nuclei, each of random brightness and texture."""
    import cv2

    inside = (places > 0).astype(np.uint8)
    ground = random.uniform(0.0, 0.4) + random.uniform(0, 0.2) * _smooth(places.shape, random)
    canvas = ground + random.uniform(0, 0.1) * _texture(places.shape, random)
    contrast = random.uniform(0.15, 0.7)
    if random.random() < 0.4:  # cell bodies: light that fades with the distance from the nuclei
        away = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3)
        body = np.exp(-away / random.uniform(2.0, 15.0))
        body *= 1 + 0.3 * _texture(places.shape, random)
        canvas += contrast * random.uniform(0.1, 0.7) * body
    if random.random() < 0.4:
        canvas += contrast * random.uniform(0.2, 1.0) * _debris(places.shape, random)
    nuclei = _nuclei(inside, places, random)
    soft = random.uniform(0.4, 2.0)
    if random.random() < 0.5:  # nuclei that hide what is behind them; else their light is added
        cover = _blur(inside, soft)
        canvas = canvas * (1 - cover) + cover * float(ground.mean())
    canvas += contrast * _blur(nuclei, soft)
    top = float(np.percentile(canvas, 99.9))
    return canvas * (255.0 * random.uniform(0.6, 1.0) / max(top, 1e-3))


def _nuclei(inside, places, random):
    """The brightness of the nuclei, around 1: one for each, times texture, times bright rims or centres."""
    import cv2

    own = np.exp(random.normal(0, random.uniform(0, 0.5), int(places.max()) + 1))
    texture = 1 + random.uniform(0, 0.45) * _texture(places.shape, random)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    bend = random.uniform(-0.6, 0.6) * (random.random() < 0.5)
    profile = 1 + bend * (1 - np.exp(-depth / random.uniform(1.5, 6.0)))
    return inside * own[places] * texture * profile


def _blur(values, sigma):
    import cv2

    return cv2.GaussianBlur(np.ascontiguousarray(values, np.float32), (0, 0), sigma)


def _smooth(shape, random):
    """A smooth field from 0 to about 1."""
    import cv2

    knots = random.random((int(random.integers(2, 8)),) * 2, np.float32)
    return cv2.resize(knots, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _texture(shape, random):
    """Noise of a random grain, mean 0 and standard deviation 1."""
    sigma = np.exp(random.uniform(np.log(0.5), np.log(6.0)))
    field = _blur(random.standard_normal(shape, np.float32), sigma)
    return (field - field.mean()) / max(float(field.std()), 1e-6)


def _debris(shape, random):
    """Specks and fibres of brightness up to 1, all thinner than a nucleus."""
    import cv2

    layer = np.zeros(shape, np.float32)
    for _ in range(int(random.integers(0, 30))):
        column, row = (int(random.integers(0, side)) for side in (shape[1], shape[0]))
        radius, light = int(random.integers(0, 3)), float(random.uniform(0.3, 1))
        cv2.circle(layer, (column, row), radius, light, -1)
    for _ in range(int(random.integers(0, 6))):
        steps = np.cumsum(random.normal(0, 12, (12, 2)) + random.normal(0, 10, 2), 0)
        line = (steps + random.uniform(0, max(shape), 2)).astype(np.int32)
        light, thickness = float(random.uniform(0.2, 0.8)), int(random.integers(1, 3))
        cv2.polylines(layer, [line], False, light, thickness)
    return _blur(layer, random.uniform(0.5, 1.5))
