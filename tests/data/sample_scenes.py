"""Synthetic scenes: nuclei with known outlines, drawn in the five types of BBBC038.

Numbers are integers, or floats with only + - * / and square roots, which IEEE arithmetic rounds alike
on every machine; random numbers are PCG64's integers. So a seed gives the same pixels everywhere.
Values are light in 1/256 grey levels (int64) until they become uint8.
"""

from dataclasses import dataclass

import numpy as np

ONE = 256  # fixed point: one grey level, or a factor of 1


@dataclass(frozen=True)
class Look:
    """A type of image. Radii in pixels; colours RGB; ``light`` is the share of the light that a nucleus
    transmits (stained), or None for fluorescence; ``cells`` is the share for the paler cell bodies."""

    name: str
    radius: tuple
    background: tuple
    light: tuple = None
    cells: tuple = None
    elongation: float = 0.45
    texture: int = 60

    @property
    def grey(self):
        return len(set(self.background)) == 1


LOOKS = {
    row[0]: Look(*row)
    for row in (
        ("small fluorescent", (5, 9), (14, 14, 14)),
        ("large fluorescent", (17, 26), (16, 16, 16), None, None, 0.45, 40),
        ("purple stain", (7, 14), (178, 158, 206), (128, 62, 240), (246, 236, 252), 0.6, 90),
        ("pink-and-purple stain", (7, 12), (228, 222, 230), (124, 66, 176), (244, 196, 226), 0.45, 90),
        ("grey tissue", (5, 8), (222, 222, 222), (104, 104, 104), (196, 196, 196), 0.3, 40),
    )
}  # fmt: skip


def draw_scene(random, look, shape, count, clusters, blur, noise):
    """One image and its truth: (uint8 (H, W, 3), int32 (H, W) with ids 1..n).

    ``random`` is a numpy Generator on PCG64; ``count`` the number of nuclei to place; ``clusters`` the
    percentage of nuclei that are placed next to another one; ``blur`` the passes of a 3x3 box; ``noise``
    the strength of the noise in percent of a typical camera's.
    """
    labels = place_nuclei(random, look, shape, count, clusters)
    texture = smooth_noise(random, shape, 2, 2)
    if look.light is None:
        light = _fluorescence(random, look, labels, texture)[..., None]
    else:
        light = _transmission(random, look, labels, texture)[..., : 1 if look.grey else 3]
    light = light * _uneven(random, shape)[..., None] // ONE
    for _ in range(blur):
        light = box_blur(light, 1)
    return _expose(random, light, noise if look.grey else noise * 2 // 5), labels


def place_nuclei(random, look, shape, count, clusters):
    """Label map int32 (H, W): bent ellipses, some touching, some cut by the edge; each is one connected
    piece."""
    height, width = shape
    labels = np.zeros(shape, np.int32)
    bend = smooth_noise(random, (height + 128, width + 128), 6, 3)
    centres = []
    for _ in range(count * 6):
        if len(centres) == count:
            break
        radius = between(random, *look.radius)
        if centres and random.integers(100) < clusters:
            near = centres[int(random.integers(len(centres)))]
            turn = rotation(random)
            reach = (near[2] + radius) * between(random, 85, 110) // 100
            y, x = int(near[0] + reach * turn[0]), int(near[1] + reach * turn[1])
        else:
            y, x = (
                between(random, -radius // 2, height + radius // 2),
                between(random, -radius // 2, width + radius // 2),
            )
        nucleus = _nucleus(random, look, (y, x), radius, bend, shape)
        if nucleus is None:
            continue
        rows, cols, body = nucleus
        free = body & (labels[rows, cols] == 0)
        if free.sum() * 10 < body.sum() * 8 or free.sum() < 12:
            continue
        free = largest_piece(free)
        centres.append((y, x, radius))
        labels[rows, cols][free] = len(centres)
    return labels


def _nucleus(random, look, centre, radius, bend, shape):
    """A bent ellipse inside the image: (row slice, column slice, bool mask), or None if outside."""
    short = 1 - look.elongation * between(random, 0, 100) / 100
    cos, sin = rotation(random)
    shift_y, shift_x = between(random, 0, 127), between(random, 0, 127)
    reach = radius + radius // 3 + 1
    top, bottom = max(centre[0] - reach, 0), min(centre[0] + reach + 1, shape[0])
    left, right = max(centre[1] - reach, 0), min(centre[1] + reach + 1, shape[1])
    if top >= bottom or left >= right:
        return None
    dy = np.arange(top, bottom)[:, None] - centre[0]
    dx = np.arange(left, right)[None, :] - centre[1]
    along, across = (dx * cos + dy * sin) / radius, (dy * cos - dx * sin) / (radius * short)
    local = bend[top + shift_y : bottom + shift_y, left + shift_x : right + shift_x]
    body = along * along + across * across + local / 180.0 < 1.0
    if body.sum() < 12:
        return None
    return slice(top, bottom), slice(left, right), largest_piece(body)


def _fluorescence(random, look, labels, texture):
    """Light of a fluorescent image: glow, dim or bright nuclei, out-of-focus haze."""
    count = int(labels.max())
    gain = between(random, 25, 100)
    bright = np.array(
        [0] + [between(random, 60, 200) * gain // 100 for _ in range(count)], np.int64
    )
    body = bright[labels] * (ONE + texture * look.texture // 100)
    haze = box_blur(box_blur(body, 9), 9) // 6
    stray = np.maximum(smooth_noise(random, labels.shape, 24, 2) - 60, 0) * gain // 40
    return body + haze + stray + look.background[0] * ONE


def _transmission(random, look, labels, texture):
    """Light through stained tissue: the background, cell bodies, then the nuclei."""
    count = int(labels.max())
    density = np.array([0] + [between(random, 55, 110) for _ in range(count)], np.int64)
    depth = np.clip(
        density[labels] * ONE // 100 + np.where(labels > 0, texture * look.texture // 100, 0),
        0,
        ONE + 40,
    )
    tissue = np.clip(ONE // 3 + smooth_noise(random, labels.shape, 10, 2) * 2, 0, ONE)
    if look.name == "grey tissue":
        reach = (
            box_blur(box_blur((labels > 0) * ONE, 13), 9) * 10
            + smooth_noise(random, labels.shape, 8, 2) * 3
        )
        tissue = np.clip((reach - ONE // 2) * 2, 0, ONE) * (3 * ONE // 4 + 2 * texture) // ONE
    # nuclei far out of focus
    ghosts = np.clip(smooth_noise(random, labels.shape, 9, 2) - 75, 0, 70)
    light = np.empty((*labels.shape, 3), np.int64)
    for channel in range(3):
        passed = look.background[channel] * ONE
        passed = passed * (ONE * ONE - tissue * (ONE - look.cells[channel])) // (ONE * ONE)
        absorbed = np.minimum(depth + ghosts, ONE + 40) * (ONE - look.light[channel])
        light[..., channel] = passed * np.maximum(ONE * ONE - absorbed, 0) // (ONE * ONE)
    return light


def _uneven(random, shape):
    """Uneven light: a factor around 1 (ONE), a shifted parabola as from a misaligned condenser."""
    height, width = shape
    y = (np.arange(height)[:, None] * 512 // height - 256) - between(random, -160, 160)
    x = (np.arange(width)[None, :] * 512 // width - 256) - between(random, -160, 160)
    fall = between(random, 0, 60)
    return ONE - fall * (y * y + x * x) // (2 * 416 * 416)


def _expose(random, light, noise):
    """Add photon and read-out noise, and convert to uint8 RGB. The noise is a sum of uniform integers whose
    spread grows with the square root of the light."""
    shape = light.shape
    level = np.sqrt(np.maximum(light, 0) / ONE)
    uniform = random.integers(0, 256, (4, *shape)).sum(axis=0) - 510  # spread about 148
    values = light / ONE + uniform / 148.0 * (0.35 * level + 1.0) * noise / 100.0
    pixels = np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=2) if shape[2] == 1 else pixels


def smooth_noise(random, shape, radius, passes):
    """Smooth noise int64 (H, W) around zero, spread about 40: box blurs of white noise."""
    margin = radius * passes
    field = random.integers(-1000, 1001, (shape[0] + 2 * margin, shape[1] + 2 * margin))
    for _ in range(passes):
        field = box_blur(field * 16, radius) // 16
    field = field[margin : margin + shape[0], margin : margin + shape[1]]
    spread = max(int(np.abs(field).sum()) // field.size, 1)
    return field * 32 // spread


def box_blur(array, radius):
    """Mean over a (2 radius + 1) square, rounded down, edges repeated: int64 (H, W[, C])."""
    side = 2 * radius + 1
    for axis in (0, 1):
        pad = [(0, 0)] * array.ndim
        pad[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(array, pad, mode="edge"), axis=axis)
        ahead = np.take(total, np.arange(side, total.shape[axis]), axis=axis)
        behind = np.take(total, np.arange(total.shape[axis] - side), axis=axis)
        array = (ahead - behind) // side
    return array


def largest_piece(mask):
    """The largest 4-connected piece of a bool mask."""
    from skimage.measure import label

    pieces = label(mask, connectivity=1)
    return pieces == np.bincount(pieces.ravel())[1:].argmax() + 1 if pieces.any() else mask


def rotation(random):
    """Cosine and sine of a random angle, from a rational point of the circle (libraries' sines differ)."""
    t = between(random, -1000, 1000) / 1000
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return (cos, sin) if random.integers(2) else (-cos, -sin)


def between(random, low, high):
    """A random whole number from low to high, both included."""
    return int(random.integers(low, high + 1))
