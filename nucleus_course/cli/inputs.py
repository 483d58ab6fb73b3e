"""The options that say what of a file `predict` reads, and the files it is given."""

from __future__ import annotations

from typing import Annotated

import typer

from nucleus_course.prediction.image_files import ImageFile, find_images, read_picture

__all__ = [
    "Channel",
    "ImageFile",
    "Level",
    "Plane",
    "Series",
    "Time",
    "find_images",
    "read_picture",
]


def reading(channel, plane, time, series, level) -> dict:
    """The five options as :func:`~nucleus_course.data.read.read_image` takes them."""
    return {"channel": channel, "plane": plane, "time": time, "series": series, "level": level}


Channel = Annotated[
    str | None,
    typer.Option(
        metavar="N|NAME",
        help="The channel to read: its number from 0, or its name. Default: the nuclear stain by name.",
    ),
]
Plane = Annotated[
    str | None,
    typer.Option(metavar="N|max|focus", help="The focal plane: a number, max or the sharpest."),
]
Time = Annotated[int | None, typer.Option(metavar="N", help="The time to read, from 0.")]
Series = Annotated[
    int | None, typer.Option(metavar="N", help="The series (picture) of a TIFF, from 0.")
]
Level = Annotated[
    int | None, typer.Option(metavar="N", help="The level of a pyramid, 0 the largest.")
]
