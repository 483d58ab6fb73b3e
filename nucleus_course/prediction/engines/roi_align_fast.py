"""RoIAlign in one kernel, for prediction on TensorFlow."""

import numpy as np
from keras import ops

from nucleus_course.geometry.boxes import pyramid_level
from nucleus_course.models.mask_rcnn.roi_align import roi_align


def crop_roi_align(
    features, boxes, batch_index, size, *, strides, samples=1, canonical_size=224.0, beyond=False
):
    """As :func:`~nucleus_course.models.mask_rcnn.roi_align.roi_align`, with ``tf.image.crop_and_resize``.

    Four gathers and their weighted sum write every sample a dozen times, 200 MB each for a thousand boxes;
    this kernel writes it once. Shapes depend on the boxes, so it does not run under XLA or JAX, and rounding
    differs (by about 1e-4 of the features).

    Args:
        beyond: whether boxes may reach beyond the image's edge, as dilated ones do. The kernel reads 0 beyond
            the map, so boxes with a sample there use the four gathers. Otherwise maps are padded by one
            cell, because samples may lie half a cell outside.
    """
    import tensorflow as tf

    level = pyramid_level(boxes, canonical_size, 2, 1 + len(features)) - 2
    points, rim = size * samples, 0 if beyond else 1
    # The kernel takes the first and the last sample, as fractions of the map, and spaces the others evenly.
    side = boxes[:, 2:] - boxes[:, :2]
    ends = tf.concat(
        [boxes[:, :2] + side * (0.5 / points), boxes[:, 2:] - side * (0.5 / points)], axis=1
    )
    crops, order, left = [], [], tf.ones_like(level, "bool")
    for number, (feature, stride) in enumerate(zip(features, strides)):
        if rim:
            feature = tf.pad(feature, ((0, 0), (1, 1), (1, 1), (0, 0)), "SYMMETRIC")
        extent = np.array([feature.shape[1:3]], "float32") - 1.0
        cells = ends / stride - 0.5 + rim
        own = level == number
        if beyond:
            own = own & tf.reduce_all((cells >= 0.0) & (cells <= np.tile(extent, 2)), axis=1)
            left = left & ~own
        own = tf.cast(tf.where(own)[:, 0], "int32")
        shares = tf.gather(cells, own) / np.tile(np.maximum(extent, 1.0), 2)
        whole = tf.cast(feature, "float32")  # the kernel has no bfloat16
        crop = tf.image.crop_and_resize(
            whole, shares, tf.gather(batch_index, own), (points, points)
        )
        crop = tf.nn.avg_pool2d(crop, samples, samples, "VALID") if samples > 1 else crop
        crops.append(tf.cast(crop, feature.dtype))
        order.append(own)
    if beyond:
        rest = tf.cast(tf.where(left)[:, 0], "int32")
        own = tf.gather(boxes, rest), tf.gather(batch_index, rest)
        options = {"strides": strides, "samples": samples, "canonical_size": canonical_size}
        none = tf.zeros((0, size, size, features[0].shape[-1]), features[0].dtype)
        crops.append(
            tf.cond(
                tf.size(rest) > 0, lambda: roi_align(features, *own, size, **options), lambda: none
            )
        )
        order.append(rest)
    crops = tf.gather(tf.concat(crops, axis=0), tf.argsort(tf.concat(order, axis=0)))
    return ops.reshape(crops, (-1, size, size, features[0].shape[-1]))
