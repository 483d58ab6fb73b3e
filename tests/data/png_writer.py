"""A small PNG writer. Unlike an image library's, its bytes depend only on zlib."""

import struct
import zlib

import numpy as np

from nucleus_course.data.files import PNG_SIGNATURE

COLOUR_TYPES = {1: 0, 3: 2, 4: 6}


def png_bytes(array, adaptive=True):
    """Encode uint8 (H, W), (H, W, 3) or (H, W, 4) as PNG.

    Each row uses the filter (none, left, up) with the smallest sum of absolute differences, as encoders
    usually do; without ``adaptive`` no row is filtered, which suits masks.
    """
    array = np.asarray(array)
    pixels = array if array.ndim == 3 else array[..., None]
    height, width, channels = pixels.shape
    if array.dtype != np.uint8 or channels not in COLOUR_TYPES:
        raise ValueError(
            f"uint8 with 1, 3 or 4 channels was expected, not {array.dtype} {array.shape}"
        )
    candidates = [pixels]
    if adaptive:
        left, up = pixels.copy(), pixels.copy()
        left[:, 1:] -= pixels[:, :-1]
        up[1:] -= pixels[:-1]
        candidates += [left, up]
    candidates = np.stack([rows.reshape(height, -1) for rows in candidates])
    cost = np.abs(candidates.view(np.int8).astype(np.int16)).sum(axis=2)
    choice = cost.argmin(axis=0)
    rows = candidates[choice, np.arange(height)]
    data = np.concatenate([choice[:, None].astype(np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(data, 6)), (b"IEND", b"")
    return PNG_SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
