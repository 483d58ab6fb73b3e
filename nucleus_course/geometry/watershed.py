"""Separating touching nuclei by the shape of their foreground."""

import numpy as np


def separate(mask, depth):
    """Divide a foreground among its nuclei: a watershed on the distance to the background.

    Vincent and Soille 1991. Every maximum of the distance that stands ``depth`` pixels above the saddle to a higher one
    is a nucleus; flatter ones belong to their neighbour. A piece of the foreground too thin for such a maximum is one
    nucleus.

    Args:
        mask: (H, W) bool; depth: pixels.

    Returns:
        (H, W) int32 labels 1..n.
    """
    from scipy.ndimage import distance_transform_edt, label
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    if not mask.any():
        return np.zeros(mask.shape, "int32")
    # Padded with background, so that the distance also falls off at the image's edge.
    distance = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1].astype("float32")
    # The maxima of the h-reconstruction: skimage's h_maxima separates maxima of equal height at any saddle.
    peaks = local_maxima(reconstruction(distance - depth, distance)) & mask
    markers, count = label(peaks, structure=np.ones((3, 3)))
    pieces, _ = label(mask)
    thin = ~np.isin(pieces, np.unique(pieces[peaks])) & mask
    markers[thin] = label(thin)[0][thin] + count
    return watershed(-distance, markers, mask=mask, connectivity=1).astype("int32")
