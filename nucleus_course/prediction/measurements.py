"""Measurements of the nuclei in a label image: a row for each nucleus, and a row for each image."""

import csv
import io

import numpy as np

from nucleus_course.data.read import plain_channels

# Column -> property of skimage.measure.regionprops. Lengths are pixels, rows count down from the image's top.
PROPERTIES = {
    "label": "label",
    "area_px": "area",
    "diameter_px": "equivalent_diameter_area",
    "centroid_row": "centroid-0",
    "centroid_column": "centroid-1",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "mean_brightness": "mean_intensity",
}


def measure_nuclei(labels, image):
    """Size, place, shape and brightness of each nucleus.

    Args:
        labels: (H, W) int, 0 background.
        image: the image as read, of any dtype; brightness is its channels' mean, in the file's own units.

    Returns:
        a list of dicts with the keys of :data:`PROPERTIES`, one for each nucleus: ``diameter_px`` is that
        of the disc of equal area, ``eccentricity`` 0 for a disc, ``solidity`` the share of its convex hull
        that a nucleus fills.
    """
    from skimage.measure import regionprops_table

    values = plain_channels(image)
    grey = values if values.ndim == 2 else values.mean(axis=2)
    names = sorted({name.split("-")[0] for name in PROPERTIES.values()})
    table = regionprops_table(labels, intensity_image=grey, properties=names)
    columns = [table[name].tolist() for name in PROPERTIES.values()]
    return [dict(zip(PROPERTIES, row)) for row in zip(*columns)]


def view_columns(seen, novelty=None):
    """How an image was seen, for counts.csv.

    Args:
        seen: :class:`~nucleus_course.data.canonical.Canonical`, or None for the colour input.
        novelty: how far the image is from what the model learned, or None.

    Returns:
        dict: polarity, stain (yes or no), the values low and high that became black and white, and
        novelty; empty where unknown.
    """
    row = dict.fromkeys(("polarity", "stain", "low", "high", "novelty"), "")
    if seen is not None:
        stain = "yes" if seen.stain else "no"
        row |= {"polarity": seen.polarity, "stain": stain, "low": seen.low, "high": seen.high}
    return row if novelty is None else row | {"novelty": novelty}


def count_image(file_name, shape, nuclei, seen=None):
    """The row of one image in counts.csv.

    Args:
        shape: height and width; nuclei: what :func:`measure_nuclei` gave.
        seen: what :func:`view_columns` gave.

    Returns:
        dict: image, height, width, nuclei, median_area_px (empty without nuclei), and ``seen``.
    """
    median = float(np.median([n["area_px"] for n in nuclei])) if nuclei else ""
    row = {"image": file_name, "height": shape[0], "width": shape[1], "nuclei": len(nuclei)}
    return {**row, "median_area_px": median, **(seen or view_columns(None))}


def to_csv(rows, columns):
    """Rows of dicts as the text of a CSV file with a header; numbers that are not whole get four digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) and v % 1 else v for k, v in row.items()})  # fmt: skip
    return text.getvalue()
