"""RoIAlign in one kernel, for prediction on TensorFlow."""

import numpy as np
from keras import ops

from nucleus_course.model.boxes import pyramid_level


def crop_roi_align(features, boxes, batch_index, size, *, strides, samples=1, canonical_size=224.0):
    """As :func:`~nucleus_course.model.roi_align.roi_align`, through ``tf.image.crop_and_resize``.

    Four gathers and their weighted sum write every sample a dozen times, 200 MB each for a thousand boxes;
    this kernel writes it once. Shapes inside depend on the boxes, so neither XLA nor JAX can have it, and
    sums are rounded otherwise (by about 1e-4 of the features). For boxes inside the image: a sample more than
    half a cell beyond the map reads 0.
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
        feature = tf.cast(feature, "float32")  # the kernel has no bfloat16
        feature = tf.concat([feature[:, :1], feature, feature[:, -1:]], axis=1)  # samples may lie half a cell out
        feature = tf.concat([feature[:, :, :1], feature, feature[:, :, -1:]], axis=2)
        extent = np.array([feature.shape[1:3]], "float32") - 1.0
        own = tf.where(level == number)[:, 0]
        ends = [(tf.gather(end, own) / stride + 0.5) / extent for end in (first, last)]
        crop = tf.image.crop_and_resize(feature, tf.concat(ends, axis=1), tf.gather(batch_index, own), (points, points))
        crops.append(tf.nn.avg_pool2d(crop, samples, samples, "VALID") if samples > 1 else crop)
        order.append(own)
    crops, order = tf.concat(crops, axis=0), tf.concat(order, axis=0)
    crops = tf.gather(crops, tf.argsort(order))
    return ops.cast(ops.reshape(crops, (-1, size, size, features[0].shape[-1])), features[0].dtype)
