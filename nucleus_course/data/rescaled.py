"""The same nuclei at another magnification, to test a model on sizes that it was not made for."""

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.dataset import Record
from nucleus_course.data.labels import renumber
from nucleus_course.data.preprocess import resize


def resized(picture, factor):
    """A picture (H, W[, 3]), uint8 or uint16, resized by ``factor``: area average to shrink, bilinear to enlarge."""
    import cv2

    if factor == 1.0:
        return picture
    size = tuple(max(1, round(side * factor)) for side in picture.shape[1::-1])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    if picture.ndim == 3 and picture.strides[2] == 0:  # grey: a view of one channel
        grey = cv2.resize(np.ascontiguousarray(picture[..., 0]), size, interpolation=how)
        return np.broadcast_to(grey[..., None], (*grey.shape, 3))
    return cv2.resize(np.ascontiguousarray(picture), size, interpolation=how)


class Rescaled:
    """A data set with images and label images resized by ``factor``.

    Used like the :class:`~nucleus_course.data.Dataset` behind it. Labels are resized to the nearest pixel;
    nuclei that are left without a pixel are removed.

    Raises:
        UserError: a factor that is not between 1/16 and 16.
    """

    def __init__(self, dataset, factor):
        if not 1 / 16 <= factor <= 16:
            raise UserError(f"rescale {factor:g}: choose a factor from 1/16 to 16")
        self._dataset, self.factor = dataset, factor

    def __getattr__(self, name):
        return getattr(self._dataset, name)

    def __len__(self):
        return len(self._dataset)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __repr__(self):
        return f"{self._dataset!r} rescaled by {self.factor:g}"

    def __getitem__(self, key):
        record = self._dataset[key]
        image = resized(record.image, self.factor)
        labels = renumber(resize(record.labels, self.factor))
        labels = labels[: image.shape[0], : image.shape[1]]
        deep = None if record.deep is None else resized(record.deep, self.factor)
        return Record(record.id, image, labels, record.type, deep)

    @property
    def sizes(self):
        """{id: (height, width)}, pixels."""
        return {
            name: tuple(max(1, round(side * self.factor)) for side in size)
            for name, size in self._dataset.sizes.items()
        }
