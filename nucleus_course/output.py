"""What commands show while they work, and how their files are written: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def progress():
    """A progress bar with the time left, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def write_labels(path: Path, labels) -> None:
    """Write a label image (H, W) as a compressed TIFF, uint16, or uint32 above 65,535 labels."""
    import tifffile

    dtype = "uint16" if labels.max(initial=0) <= 65535 else "uint32"
    write_atomically(path, lambda place: tifffile.imwrite(place, labels.astype(dtype), compression="zlib"))


def write_overlay(path: Path, image, labels) -> None:
    """Write an image (H, W, 3) uint8 as a PNG with the outline of each label in orange."""
    from PIL import Image
    from skimage.segmentation import find_boundaries

    painted = image.copy()
    painted[find_boundaries(labels, mode="inner")] = (230, 159, 0)  # Okabe and Ito's orange
    write_atomically(path, lambda place: Image.fromarray(painted).save(place, format="PNG"))


def write_atomically(path: Path, write) -> None:
    """Call ``write`` with a temporary path beside ``path``, then move the result into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.partial")
    try:
        write(place)
        os.replace(place, path)
    except BaseException:
        place.unlink(missing_ok=True)
        raise
