"""napari's widget *Plugins, Nuclei, Find nuclei*: from an image layer to a layer of labels and one of outlines.

napari.yaml names :func:`find_nuclei`, and napari builds the form from its signature (with magicgui), so neither
is imported here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.geometry.polygons import polygons_from_labels


@lru_cache(maxsize=2)
def _model(weights):
    """The model of a name or folder, kept for the next press of the button."""
    from nucleus_course.prediction.segmenter import load

    return load(weights)


def find_nuclei(
    image: napari.layers.Image,  # noqa: F821
    weights: str = "compact",
    channel: int = 0,
    tile: int = 0,
    threshold: float = 0.0,
    outlines: bool = True,
) -> list[napari.types.LayerDataTuple]:  # noqa: F821
    """Find the nuclei in an image layer.

    Args:
        image: a layer (H, W), (H, W, 3) in RGB, or (C, H, W).
        weights: a shipped name, or a model folder.
        channel: which of C; ignored for the other two shapes.
        tile: side of the tiles in pixels; 0: automatic.
        threshold: least score; 0: the one stored with the weights.
        outlines: whether to add a layer of polygons, which is slow for thousands of nuclei.

    Returns:
        Layers as napari takes them, (data, options, type): "labels", int32 (H, W), and "shapes", outer rings
        (row, column). Both have the image layer's scale, and their features hold label and score.

    Raises:
        UserError: a layer of another shape, no such channel, or unknown weights.
    """
    plane = image_plane(image, channel)
    found = _model(weights).predict(plane, tile=tile or None, progress=False)
    labels, scores = found.labels_and_scores(threshold or None)
    rgb = getattr(image, "rgb", False) and len(image.scale) > 2
    scale = tuple(image.scale[-3:-1] if rgb else image.scale[-2:])
    common = {"scale": scale, "metadata": {"weights": weights}}
    # The first row is the background's.
    features = {"label": np.arange(len(scores) + 1), "score": np.concatenate([[np.nan], scores])}
    layers = [(labels, {"name": f"{image.name}: nuclei", "features": features, **common}, "labels")]
    if outlines:
        polygons = polygons_from_labels(labels)
        pieces = [(label, rings[0]) for label, parts in polygons.items() for rings in parts]
        # From (x, y) counted at pixel corners to napari's (row, column) counted at pixel centres.
        rings = [ring[:, ::-1] - 0.5 for _, ring in pieces]
        owners = np.array([label for label, _ in pieces], int)
        about = {"label": owners, "score": scores[owners - 1]}
        style = {"shape_type": "polygon", "edge_color": "orange", "edge_width": 1}
        style |= {"face_color": "transparent", "name": f"{image.name}: outlines"}
        layers.append((rings, {"features": about, **style, **common}, "shapes"))
    return layers


def image_plane(image, channel):
    """The plane of a layer to segment, (H, W) or (H, W, 3); of a pyramid the largest level."""
    data = image.data[0] if getattr(image, "multiscale", False) else image.data
    if getattr(image, "rgb", False) or data.ndim == 2:
        return np.asarray(data)
    if data.ndim != 3:
        raise UserError(
            f"layer {image.name}: shape {tuple(data.shape)}: show one time and plane in a layer of its own"
        )
    if not 0 <= channel < data.shape[0]:
        raise UserError(f"layer {image.name}: channel {channel}: choose 0 to {data.shape[0] - 1}")
    return np.asarray(data[channel])
