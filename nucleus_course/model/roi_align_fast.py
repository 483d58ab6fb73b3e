"""RoIAlign in one kernel, for prediction on TensorFlow."""

import numpy as np
from keras import ops

from nucleus_course.model.boxes import pyramid_level
from nucleus_course.model.roi_align import roi_align


def crop_roi_align(features, boxes, batch_index, size, *, strides, samples=1, canonical_size=224.0):
    """As :func:`~nucleus_course.model.roi_align.roi_align`, through ``tf.image.crop_and_resize``.

    Four gathers and their weighted sum write every sample a dozen times, 200 MB each for a thousand boxes;
    this kernel writes it once. Shapes inside depend on the boxes, so neither XLA nor JAX can have it, and
    sums are rounded otherwise (by about 1e-4 of the features). The kernel reads 0 beyond the map, so boxes with
    a sample there, at the image's edge or dilated over it, take the four gathers.
    """
    import tensorflow as tf

    level = pyramid_level(boxes, canonical_size, 2, 1 + len(features)) - 2
    points = size * samples
    # The kernel takes the first and the last sample, as shares of the map, and puts the others between.
    side = boxes[:, 2:] - boxes[:, :2]
    first = boxes[:, :2] + side * (0.5 / points)
    last = boxes[:, 2:] - side * (0.5 / points)
    crops, order = [], []
    for number, (feature, stride) in enumerate(zip(features, strides)):
        extent = np.array([feature.shape[1:3]], "float32") - 1.0
        ends = tf.concat([first / stride - 0.5, last / stride - 0.5], axis=1)
        inside = tf.reduce_all((ends >= 0.0) & (ends <= np.tile(extent, 2)), axis=1)
        own = tf.cast(tf.where((level == number) & inside)[:, 0], "int32")
        shares = tf.gather(ends, own) / np.tile(np.maximum(extent, 1.0), 2)
        whole = tf.cast(feature, "float32")  # the kernel has no bfloat16
        crop = tf.image.crop_and_resize(whole, shares, tf.gather(batch_index, own), (points, points))
        crop = tf.nn.avg_pool2d(crop, samples, samples, "VALID") if samples > 1 else crop
        crops.append(tf.cast(crop, feature.dtype))
        order.append(own)
        own = tf.cast(tf.where((level == number) & ~inside)[:, 0], "int32")
        rest = tf.gather(boxes, own), tf.gather(batch_index, own)
        crops.append(roi_align([feature], *rest, size, strides=[stride], samples=samples))
        order.append(own)
    crops = tf.gather(tf.concat(crops, axis=0), tf.argsort(tf.concat(order, axis=0)))
    return ops.reshape(crops, (-1, size, size, features[0].shape[-1]))
