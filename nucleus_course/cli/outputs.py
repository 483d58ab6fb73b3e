"""What `predict` writes beside its labels and tables: formats of other programs, units, further properties."""

from __future__ import annotations

from typing import Annotated

import typer

from nucleus_course.prediction.outputs import Outputs

__all__ = ["Export", "Outputs", "PixelSize", "Properties"]

Export = Annotated[
    str,
    typer.Option(
        metavar="FORMATS",
        help="Also write rois (Fiji), geojson (QuPath), ome-tiff, ome-zarr (napari), parquet: a list with commas.",
    ),
]
PixelSize = Annotated[
    float | None,
    typer.Option(
        metavar="UM",
        help="Side of a pixel in micrometres, for units alone; default: what the file says.",
    ),
]
Properties = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Also measure these properties of skimage.measure.regionprops: perimeter,orientation.",
    ),
]
