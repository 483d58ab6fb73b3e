"""Random crops and their augmentation, with image and label map kept aligned.

Each crop gets a random place, rotation, scale and flips. The region needed is cut out of the image and
warped once (image bilinear, labels nearest); then colours, blur and noise are changed on the small crop.
The paper's four augmentations are random crops, rotations, Gaussian blur, and horizontal and vertical
flips (Johnson 2018, section 2); all others are off by default. Flips, blur, contrast, gamma and inversion
are imgaug's functions; crop, rotation and scale are one matrix, because a chain of imgaug's would
interpolate several times.

All random numbers come from the (seed, epoch, index) of the call, so results do not depend on threads.
"""

import numpy as np

from nucleus_course.data import disturb
from nucleus_course.data.read import is_grey


class Augmenter:
    """Draws ``size`` x ``size`` crops according to an :class:`AugmentConfig`; thread-safe.

    ``augmenter(image, labels, seed)`` takes an image uint8 (H, W, 3), its label map int32 (H, W)
    and a seed (seed, epoch, index) of non-negative integers, and returns (image uint8
    (size, size, 3), labels int32 (size, size)). A nucleus keeps the id it has in ``labels``, so ids
    may have gaps. If the crop cuts a nucleus into pieces, they keep its id; a mirrored copy that does
    not touch its original gets a new id above all others.
    """

    def __init__(self, config, size):
        if size < 1:
            raise ValueError(f"size={size}: give at least one pixel")
        self.config = config
        self.size = int(size)

    def __call__(self, image, labels, seed):
        if image.shape[:2] != labels.shape or image.ndim != 3:
            raise ValueError(f"image {image.shape} and labels {labels.shape} differ in size")
        random = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence(tuple(int(part) for part in seed)))
        )
        draw = _Draw(self.config, random, image.shape[:2], self.size)
        picture, truth = draw.warp(image, labels)
        if self.config.border == "reflect":
            truth = _split_mirrored(truth, draw.home(labels.shape), int(labels.max(initial=0)))
        if self.config.min_area or self.config.min_fraction:
            truth = _drop_slivers(truth, labels, self.config, draw.zoom)
        picture = _recolour(picture, self.config, random)
        return picture, truth


class _Draw:
    """One random placement: where the crop's pixels lie in the image."""

    def __init__(self, config, random, shape, size):
        self.config, self.shape, self.size = config, shape, size
        self.zoom = _log_uniform(random, config.scale)
        angle = random.uniform(-config.rotation, config.rotation)
        turns = int(random.integers(4)) if config.quarter_turns else 0
        self.flips = (
            random.random() < config.flip_vertical,
            random.random() < config.flip_horizontal,
        )
        where = random.random(2) if config.crop else np.array([0.5, 0.5])
        # The crop's centre; the crop lies inside the image, before rotation, if it fits.
        self.centre = np.empty(2)
        for axis in range(2):
            room = shape[axis] - size / self.zoom
            if self.zoom == 1:  # whole pixels need no interpolation; all places are equally likely
                start = (
                    min(int(where[axis] * (room + 1)), room)
                    if room > 0 and config.crop
                    else room // 2
                )
            else:
                start = where[axis] * room if room > 0 else room / 2
            self.centre[axis] = start + size / self.zoom / 2
        self.exact = self.zoom == 1 and config.rotation == 0 and not config.elastic
        self.turns = turns
        self.angle = np.deg2rad(angle)
        self.shifts = None
        if config.elastic:
            knots = max(2, int(np.ceil(size / max(config.elastic_spacing, 1.0))) + 1)
            self.shifts = random.normal(0, config.elastic, (knots, knots, 2)).astype(np.float32)

    def matrix(self):
        """2x3, from output (x, y, 1) to input (x, y), in cv2's convention (integers are pixel centres)."""
        cos, sin = np.cos(self.angle) / self.zoom, np.sin(self.angle) / self.zoom
        linear = np.array([[cos, -sin], [sin, cos]])
        middle = np.full(2, (self.size - 1) / 2)
        return np.column_stack([linear, self.centre[::-1] - 0.5 - linear @ middle])

    def warp(self, image, labels):
        if self.exact:
            picture, truth = (self._slice(array) for array in (image, labels))
        else:
            picture, truth = self._interpolate(image, labels)
        return self._turn(picture), self._turn(np.ascontiguousarray(truth, np.int32))

    def home(self, shape):
        """Bool (size, size): the output pixels that show the image itself, not its mirrored edge;
        None if all do."""
        columns, rows = self._coordinates() if not self.exact else self._whole_coordinates()
        inside = (
            (columns > -0.5) & (columns < shape[1] - 0.5) & (rows > -0.5) & (rows < shape[0] - 0.5)
        )
        return None if inside.all() else self._turn(inside)

    def _turn(self, array):
        from imgaug.augmenters import flip

        vertical, horizontal = self.flips
        array = np.rot90(array, self.turns)
        if vertical:
            array = flip.flipud(array)
        if horizontal:
            array = flip.fliplr(array)
        return np.ascontiguousarray(array)

    def _start(self):
        return np.floor(self.centre - self.size / 2).astype(int)

    def _whole_coordinates(self):
        top, left = self._start()
        steps = np.arange(self.size)
        return np.broadcast_arrays(left + steps[None, :], top + steps[:, None])

    def _slice(self, array):
        """The crop as a slice of whole pixels, padded beyond the image."""
        starts, pads, parts = self._start(), [], []
        for start, length in zip(starts, array.shape):
            low, high = max(start, 0), min(start + self.size, length)
            parts.append(slice(low, max(high, low)))
            pads.append((max(-start, 0), max(start + self.size - length, 0)))
        piece = array[tuple(parts)]
        if not any(map(any, pads)):
            return piece
        pads += [(0, 0)] * (array.ndim - 2)
        if self.config.border == "reflect":
            return np.pad(piece, pads, mode="symmetric")
        return np.pad(piece, pads, constant_values=self.config.fill if array.ndim == 3 else 0)

    def _coordinates(self):
        """Input (columns, rows), float32 (size, size) each, of every output pixel."""
        import cv2

        steps = np.arange(self.size, dtype=np.float32)
        (a, b, c), (d, e, f) = self.matrix().astype(np.float32)
        columns = a * steps[None, :] + (b * steps[:, None] + c)
        rows = d * steps[None, :] + (e * steps[:, None] + f)
        if self.shifts is not None:
            smooth = cv2.resize(self.shifts, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
            columns, rows = columns + smooth[..., 0], rows + smooth[..., 1]
        return columns, rows

    def _interpolate(self, image, labels):
        import cv2

        reflect = self.config.border == "reflect"
        mode = cv2.BORDER_REFLECT if reflect else cv2.BORDER_CONSTANT
        columns, rows = self._coordinates()
        # Pass only the part that is needed: OpenCV allows sides of up to 32,767 pixels.
        margin = self.size if reflect else 2
        top, left = max(int(rows.min()) - margin, 0), max(int(columns.min()) - margin, 0)
        bottom, right = int(rows.max()) + margin + 1, int(columns.max()) + margin + 1
        if reflect:  # a mirror needs the true edge: cut only sides that are out of reach
            top = 0 if rows.min() < 0 else top
            left = 0 if columns.min() < 0 else left
        image = np.ascontiguousarray(image[top:bottom, left:right])
        labels = np.ascontiguousarray(labels[top:bottom, left:right], dtype=np.int32)
        columns, rows = columns - left, rows - top
        fill = (self.config.fill,) * 3
        picture = cv2.remap(
            image, columns, rows, cv2.INTER_LINEAR, borderMode=mode, borderValue=fill
        )
        # Nearest neighbour in NumPy, since OpenCV rounds coordinates to 1/32 pixel.
        truth = _take(
            labels, np.rint(rows).astype(np.int64), np.rint(columns).astype(np.int64), reflect
        )
        return picture, truth


def _take(labels, rows, columns, reflect):
    """The label at each place; beyond the edge the mirrored one, or background."""
    height, width = labels.shape
    if reflect:
        rows, columns = _mirror(rows, height), _mirror(columns, width)
        return labels[rows, columns]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return np.where(inside, labels[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)], 0)


def _mirror(index, length):
    """Index reflected at both edges, the edge pixel repeated (...1 0 | 0 1 ... n-1 | n-1 n-2...)."""
    index = np.mod(index, 2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def _split_mirrored(labels, home, largest):
    """New ids for mirrored nuclei that do not touch the nucleus they mirror."""
    if home is None or not (labels[~home] > 0).any():
        return labels
    from skimage.measure import label as components

    pieces = components(labels, background=0, connectivity=2)
    count = int(pieces.max()) + 1
    at_home = np.bincount(pieces[home], minlength=count) > 0
    foreign = np.flatnonzero(~at_home)
    foreign = foreign[foreign > 0]
    if foreign.size == 0:
        return labels
    new = np.zeros(count, np.int32)
    new[foreign] = largest + 1 + np.arange(foreign.size)
    return np.where(new[pieces] > 0, new[pieces], labels).astype(np.int32)


def _drop_slivers(labels, whole, config, zoom):
    """Make nuclei background that the crop's border cut to less than config allows. For mirrored copies,
    which have no whole to compare with, only ``min_area`` counts."""
    after = np.bincount(labels.ravel())
    before = np.bincount(np.asarray(whole).ravel(), minlength=after.size)[: after.size] * zoom**2
    sliver = np.zeros(after.size, bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        sliver[side] = True
    sliver[0] = False
    if config.min_area:
        sliver &= after < config.min_area
    if config.min_fraction:
        sliver &= (after < config.min_fraction * before) | ((before == 0) & (config.min_area > 0))
    return np.where(sliver[labels], 0, labels).astype(np.int32) if sliver.any() else labels


def _recolour(image, config, random):
    """Colours, blur and noise on a crop uint8 (size, size, 3). Random numbers are drawn even for changes
    that are off, so that one option does not shift another's."""
    from imgaug.augmenters import arithmetic, blur, contrast

    draws = random.random(8)
    signed = 2 * draws - 1
    stains = random.standard_normal((2, 3))
    coloured = bool(config.stain or config.hue or config.saturation) and not is_grey(image)
    if config.stain and coloured:
        image = _stain(image, 1 + config.stain * stains[0], 0.25 * config.stain * stains[1])
    if (config.hue or config.saturation) and coloured:
        image = _hue_saturation(
            image, np.deg2rad(config.hue * signed[0]), 1 + config.saturation * signed[1]
        )
    if config.gamma != (1.0, 1.0):
        low, high = np.log(config.gamma)
        image = contrast.adjust_contrast_gamma(image, float(np.exp(low + (high - low) * draws[2])))
    if config.contrast or config.brightness:
        middle = float(image.mean())
        gain, shift = 1 + config.contrast * signed[3], 255 * config.brightness * signed[4]
        table = np.clip(np.rint((np.arange(256) - middle) * gain + middle + shift), 0, 255)
        image = table.astype(np.uint8)[image]
    own = random.spawn(4)  # does not advance the generator
    image = disturb.haze(disturb.uneven_light(image, config, own[0]), config, own[1])
    if draws[5] < config.invert:
        image = arithmetic.invert(image)
    if draws[6] < config.blur_probability and config.blur[1] > 0:
        sigma = config.blur[0] + (config.blur[1] - config.blur[0]) * draws[7]
        image = (
            blur.blur_gaussian_(np.ascontiguousarray(image), sigma, backend="cv2")
            if sigma > 0.1
            else image
        )
    image = disturb.sharpen(image, config, own[2])
    if config.noise:
        channels = 1 if is_grey(image) else 3
        noise = random.standard_normal((*image.shape[:2], channels), np.float32) * (
            config.noise * random.random()
        )
        image = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(disturb.jpeg(image, config, own[3]))


def _stain(image, gain, offset):
    """Change gain and offset of each channel's optical density -log10((v + 1) / 256), by a table."""
    density = -np.log10((np.arange(256) + 1) / 256.0)
    levels = 256 * 10 ** -(density[:, None] * np.maximum(gain, 0) + offset) - 1
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.stack([table[:, channel][image[..., channel]] for channel in range(3)], axis=2)


def _hue_saturation(image, angle, saturation):
    """Rotate and scale the chroma plane of YIQ; luminance does not change."""
    import cv2

    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    cos, sin = saturation * np.cos(angle), saturation * np.sin(angle)
    matrix = np.linalg.inv(to_yiq) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ to_yiq
    return cv2.transform(image, matrix.astype(np.float32))


def _log_uniform(random, bounds):
    low, high = np.log(bounds)
    return float(np.exp(low + (high - low) * random.random()))
