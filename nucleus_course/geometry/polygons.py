"""Label images as polygons along the edges of pixels: exact, with holes, and fast for many nuclei.

Pixel (row, column) covers [column, column + 1] x [row, row + 1], so a polygon's area is its number of pixels.
A piece is connected over the edges of pixels; pixels that touch only at a corner belong to two pieces.
"""

import numpy as np

RIGHT, DOWN, LEFT, UP = range(4)


def polygons_from_labels(labels):
    """The outlines of every nucleus in a label image.

    Args:
        labels: (H, W) of non-negative integers, 0 is background.

    Returns:
        {label: pieces}, labels rising. A piece is a list of rings, the outer one first, then its holes; a ring is
        (K, 2) int64, the corners (x, y) in pixels from the image's upper left corner, the first not repeated.
        With y pointing down, outer rings run clockwise and holes counterclockwise. Rings may touch each other at
        a corner but never themselves, as the OGC requires of polygons.
    """
    from skimage.measure import label

    labels = np.asarray(labels)
    # int64, because scikit-image cannot label uint32
    pieces = label(labels.astype(np.int64), background=0, connectivity=1)
    owner = np.zeros(int(pieces.max(initial=0)) + 1, np.int64)
    owner[pieces] = labels
    found = {}
    for piece, ring in _rings(pieces):
        found.setdefault(piece, []).append(ring)
    outlines = {}
    for piece, rings in found.items():
        outlines.setdefault(int(owner[piece]), []).append(rings)
    return dict(sorted(outlines.items()))


def _rings(pieces):
    """Yield (piece, corners), piece by piece, with the outer ring first."""
    keys, direction, following, vertices, width = _edges(pieces)
    turns = np.zeros(len(keys), bool)  # edges that start at a corner
    turns[following] = direction[following] != direction
    owner = (keys // (4 * vertices)).tolist()
    corners = np.stack(divmod((keys // 4) % vertices, width)[::-1], axis=1)
    following, turns = following.tolist(), turns.tolist()
    seen = bytearray(len(keys))
    # Edges are sorted by piece and start: a piece's first edge is at its upper left, on the outer ring.
    for first in range(len(keys)):
        if seen[first]:
            continue
        ring, edge = [], first
        while not seen[edge]:
            seen[edge] = 1
            if turns[edge]:
                ring.append(edge)
            edge = following[edge]
        yield owner[first], corners[ring]


def _edges(pieces):
    """The directed pixel edges around each piece, which lies to the right of each, and their successors.

    Returns:
        keys (E,) int64, sorted: (piece * vertices + start vertex) * 4 + direction; direction (E,);
        following (E,), the index of the edge after each; the number of vertices, and of those in a row.
    """
    height, width = pieces.shape
    width, vertices = width + 1, (height + 1) * (width + 1)
    framed = np.pad(pieces, 1)
    above, below = framed[:-1, 1:-1], framed[1:, 1:-1]
    left, right = framed[1:-1, :-1], framed[1:-1, 1:]
    keys = []
    for direction, inside, outside, start in (
        (RIGHT, below, above, 0),
        (DOWN, left, right, 0),
        (LEFT, above, below, 1),
        (UP, right, left, width),
    ):
        row, column = np.nonzero((inside != outside) & (inside > 0))
        vertex = row * width + column + start
        keys.append((inside[row, column].astype(np.int64) * vertices + vertex) * 4 + direction)
    keys = np.sort(np.concatenate(keys))
    direction = keys % 4
    end = keys // 4 + np.array([1, width, -1, -width])[direction]
    # Where two pixels of a piece touch at a corner, two of its edges leave that vertex. Turning left there
    # separates the two sides, so that no ring touches itself.
    wanted = end * 4 + (direction - 1) % 4
    following = np.searchsorted(keys, wanted)
    straight = keys[np.minimum(following, len(keys) - 1)] != wanted if len(keys) else slice(0)
    following[straight] = np.searchsorted(keys, end[straight] * 4)
    return keys, direction, following, vertices, width
