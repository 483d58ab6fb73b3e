"""Nuclei that touch, separated by the shape of their foreground alone."""

import numpy as np


def separate(mask, depth):
    """Share a foreground out among the nuclei in it: a watershed on the distance to the background.

    Vincent and Soille 1991. Every maximum of the distance that stands ``depth`` pixels above the saddle to a higher one
    is a nucleus; flatter ones belong to their neighbour. A piece of the foreground too thin for any such maximum is one
    nucleus whole.

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
    # Padded with background: what touches the image's edge is cut there, its distance should fall off.
    distance = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1].astype("float32")
    # The maxima of the h-reconstruction; skimage's h_maxima gives two of the same height apart however deep the saddle.
    peaks = local_maxima(reconstruction(distance - depth, distance)) & mask
    markers, count = label(peaks, structure=np.ones((3, 3)))
    pieces, _ = label(mask)
    thin = ~np.isin(pieces, np.unique(pieces[peaks])) & mask
    markers[thin] = label(thin)[0][thin] + count
    return watershed(-distance, markers, mask=mask, connectivity=1).astype("int32")
