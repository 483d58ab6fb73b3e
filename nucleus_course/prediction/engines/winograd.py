"""The mask head's 3x3 convolutions with a third of their multiplications (Lavin and Gray 2016), for prediction.

Winograd's F(4x4, 3x3) computes tiles of 4 x 4 outputs from 6 x 6 inputs with 36 products per pair of channels instead
of 144. The products become matrix products over all tiles; the sums before and after them are written here as two small
matrix products per axis. That pays with many channels and small maps of one size, as in the mask head on 14 x 14
cells. Rounding differs by about 1e-5 of the values; in bfloat16 the error would be too large, so it is for float32
alone.
"""

import functools

import keras
import numpy as np
from keras import ops

TILE, REACH = 4, 6  # outputs and inputs of a tile along an axis
CHUNK = 16  # maps at a time, so that intermediates (9 MB at 256 channels) stay in the cache
FEWEST_CHANNELS = 128  # with fewer, the sums take longer than the products they save

# Lavin and Gray 2016, section 4.1.
_INPUT = np.array([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
                   [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]], "float64")  # fmt: skip
_KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24.0
_OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0],
                    [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], "float64")  # fmt: skip


def pays(layers):
    """Whether Conv2D ``layers`` are faster this way: float32, many channels, TensorFlow on a CPU."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    exact = all(layer.compute_dtype == "float32" for layer in layers)
    wide = exact and all(layer.filters >= FEWEST_CHANNELS for layer in layers)
    return wide and not tf.config.list_physical_devices("GPU")


@functools.cache
def axis_transforms(side):
    """The transforms along an axis of ``side`` cells with "same" zero padding: cells to tiles, and tiles to cells.

    Returns:
        (6 T, side) and (side, 6 T) float32 for T = ceil(side / 4) tiles; tile t's f-th sum is row, or column, f T + t.
    """
    tiles = -(-side // TILE)
    split, join = np.zeros((REACH, tiles, side + 2 + TILE)), np.zeros((side, REACH, tiles))
    for tile in range(tiles):
        split[:, tile, TILE * tile : TILE * tile + REACH] = _INPUT
        for row in range(min(TILE, side - TILE * tile)):
            join[TILE * tile + row, :, tile] = _OUTPUT[row]
    split = split[:, :, 1 : 1 + side]  # without the columns for the zero padding
    return split.reshape(-1, side).astype("float32"), join.reshape(side, -1).astype("float32")


def transform_kernel(kernel):
    """(3, 3, C, D) -> (36, C, D) float32."""
    both = np.kron(_KERNEL, _KERNEL).astype("float32")
    products = ops.matmul(both, ops.reshape(kernel, (9, -1)))
    return ops.reshape(products, (REACH * REACH, *kernel.shape[2:]))


def convolve_3x3(x, transformed):
    """``conv(x, kernel, padding="same")`` from the kernel's :func:`transform_kernel`.

    Args:
        x: (M, S, S, C) float32, M may be unknown; transformed: (36, C, D) float32.

    Returns:
        (M, S, S, D) float32.
    """
    count, side, channels, filters = ops.shape(x)[0], x.shape[1], *transformed.shape[1:]
    split, join = axis_transforms(side)
    rows, tiles = len(split), len(split) // REACH
    y = ops.matmul(split, ops.reshape(x, (count, side, side * channels)))
    y = ops.matmul(split, ops.reshape(y, (count * rows, side, channels)))  # (M, f T, f T, C)
    y = ops.reshape(y, (count, REACH, tiles, REACH, tiles * channels))
    y = ops.transpose(y, (1, 3, 0, 2, 4))
    y = ops.matmul(ops.reshape(y, (REACH * REACH, count * tiles * tiles, channels)), transformed)
    y = ops.reshape(y, (REACH, REACH, count, tiles, tiles * filters))
    y = ops.transpose(y, (2, 0, 3, 1, 4))
    y = ops.matmul(join, ops.reshape(y, (count * rows, rows, filters)))
    y = ops.matmul(join, ops.reshape(y, (count, rows, side * filters)))
    return ops.reshape(y, (count, side, side, filters))


def in_chunks(function, x):
    """``function(x)`` for any number of rows of ``x``, :data:`CHUNK` at a time, on TensorFlow."""
    import tensorflow as tf

    count = tf.shape(x)[0]
    turns = tf.maximum(1, -(-count // CHUNK))
    parts = tf.TensorArray(x.dtype, turns, infer_shape=False)

    def turn(i, parts):
        return i + 1, parts.write(i, function(x[i * CHUNK : (i + 1) * CHUNK]))

    loop = tf.while_loop(lambda i, _: i < turns, turn, (0, parts), parallel_iterations=1)
    return loop[1].concat()
