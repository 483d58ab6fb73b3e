"""Measurements of the nuclei in a label image: one row per nucleus, and one row per image."""

import csv
import difflib
import io

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.data.read import plain_channels

# Column -> property of skimage.measure.regionprops. Lengths are in pixels; row 0 is at the top.
PROPERTIES = {
    "label": "label",
    "area_px": "area",
    "diameter_px": "equivalent_diameter_area",
    "centroid_row": "centroid-0",
    "centroid_column": "centroid-1",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "mean_brightness": "intensity_mean",
}

# The columns of counts.csv about how an image was normalised and resized.
VIEW = ("polarity", "stain", "low", "high", "novelty", "scale", "warnings")


def to_rows(table):
    """{column: values} as a list of dicts, one per row."""
    return [dict(zip(table, row)) for row in zip(*table.values())]


def measurement_table(
    labels,
    image=None,
    scores=None,
    pixel_size=None,
    properties=(),
    channels=(),
    quality=None,
    novelty=None,
):
    """Size, place, shape and brightness of each nucleus, column by column.

    Args:
        labels: (H, W) int, 0 background.
        image: the image as read, of any dtype, (H, W) or (H, W, C); None leaves its columns out.
        scores: (N,) floats, one for each label, in the order of the labels; None leaves the column out.
        pixel_size: side of a pixel in micrometres; None leaves the columns in micrometres out.
        properties: names of further properties of ``skimage.measure.regionprops``, in pixels. Those that
            read the image use the mean of its channels. One with several values gets a column for each.
        channels: (name, (H, W)) of each channel of a file with several, of which ``image`` is one.
        quality: (N,) floats as ``scores``, the certainty of each outline; None leaves the column out.
        novelty: how far the image is from what the model learned; None leaves the column out.

    Returns:
        {column: list of N values}, nuclei in the order of their labels:

        * the keys of :data:`PROPERTIES`: ``diameter_px`` is that of the disc of equal area, ``eccentricity`` 0 for
          a disc, ``solidity`` the share of its convex hull that a nucleus fills, ``mean_brightness`` the mean
          over its channels, in the file's own units;
        * ``touches_edge``: whether it touches the image's edge, which may cut it;
        * ``score``, ``quality``; ``novelty``, the image's, in every row;
        * ``area_um2``, ``diameter_um``, ``centroid_x_um``, ``centroid_y_um``: measured from the image's upper left
          corner, so that the first pixel's centre is at half a pixel, as in Fiji;
        * ``mean_channel_1``, …: the mean of each channel of a colour image; ``mean_channel_<name>`` of each of
          ``channels``;
        * ``properties``.

    Raises:
        UserError: a property that scikit-image does not have or that is not a number, an invalid pixel size, or an
            image of another size.
    """
    from scipy import ndimage
    from skimage.measure import regionprops_table

    labels = np.asarray(labels)
    pixel_size = check_pixel_size(pixel_size)
    properties = check_properties(properties, image is not None)
    values = None if image is None else plain_channels(image)
    if values is not None and values.shape[:2] != labels.shape:
        raise UserError(
            f"the image has {values.shape[:2]} pixels and its label image {labels.shape}"
        )
    grey = values if values is None or values.ndim == 2 else values.mean(axis=2)
    columns = {c: n for c, n in PROPERTIES.items() if image is not None or c != "mean_brightness"}
    names = {name.split("-")[0] for name in columns.values()}.union(properties)
    ids = np.unique(labels[labels > 0])
    dense = labels  # scikit-image's memory grows with the largest label
    if len(ids) and ids[-1] > len(ids):
        dense = np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0)
    present = np.arange(1, len(ids) + 1)
    found = regionprops_table(dense, intensity_image=grey, properties=sorted(names))
    table = {column: found[name] for column, name in columns.items()} | {"label": ids}
    at_edge = np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()])
    table["touches_edge"] = np.isin(ids, at_edge)
    if scores is not None:
        table["score"] = check_scores(scores, ids)
    if quality is not None:
        table["quality"] = check_scores(quality, ids)
    if novelty is not None:
        table["novelty"] = np.full(len(ids), float(novelty))
    if pixel_size is not None:
        table["area_um2"] = table["area_px"] * pixel_size**2
        table["diameter_um"] = table["diameter_px"] * pixel_size
        table["centroid_x_um"] = (table["centroid_column"] + 0.5) * pixel_size
        table["centroid_y_um"] = (table["centroid_row"] + 0.5) * pixel_size
    for i in range(values.shape[2] if values is not None and values.ndim == 3 else 0):
        table[f"mean_channel_{i + 1}"] = ndimage.mean(values[..., i], dense, present)
    for name, plane in channels:
        table[f"mean_channel_{name}"] = ndimage.mean(plane, dense, present)
    for name in properties:
        more = [key for key in found if key == name or key.startswith(f"{name}-")]
        table |= {key: found[key] for key in more if key not in table}
    return {column: np.asarray(value).tolist() for column, value in table.items()}


def check_properties(names, with_image=True):
    """The names of scikit-image's region properties, each once.

    Raises:
        UserError: naming one that is unknown, or not a number (``coords``, ``image``, …).
    """
    from skimage.measure import regionprops, regionprops_table

    example = np.zeros((6, 6), np.uint8)
    example[1:4, 1:5] = example[4, 1:3] = 1
    image = example.astype("float64") if with_image else None
    known = set(regionprops(example, intensity_image=image)[0])
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(
                f"--properties: skimage.measure.regionprops has no property '{name}'{hint}"
            )
        table = regionprops_table(example, intensity_image=image, properties=[name])
        if any(column.dtype == object for column in table.values()):
            raise UserError(f"--properties: '{name}' is not a number; choose another property")
    return names


def check_pixel_size(pixel_size):
    """A pixel's side in micrometres as a float, or None; raises :class:`UserError` unless it is above 0."""
    if pixel_size is None:
        return None
    size = float(pixel_size)
    if not 0 < size < np.inf:
        raise UserError(f"pixel size {pixel_size}: micrometres above 0 are expected")
    return size


def check_scores(scores, ids):
    """Scores as (N,) float64; raises :class:`UserError` unless there is one for each of the N labels."""
    scores = np.asarray(scores, "float64").reshape(-1)
    if len(scores) != len(ids):
        raise UserError(f"{len(scores)} scores for {len(ids)} nuclei: one for each label is needed")
    return scores


def view_columns(seen, novelty=None, scale=None, warnings=()):
    """How an image was normalised and resized, for counts.csv.

    Args:
        seen: :class:`~nucleus_course.data.canonical.Canonical`, or None for the colour input.
        novelty: how far the image is from what the model learned, or None.
        scale: by how much it was enlarged, or None.
        warnings: the warnings about its nuclei.

    Returns:
        dict: polarity, stain (yes or no), the values low and high that became black and white, novelty,
        scale and warnings; empty if unknown.
    """
    row = dict.fromkeys(VIEW, "")
    if seen is not None:
        stain = "yes" if seen.stain else "no"
        row |= {"polarity": seen.polarity, "stain": stain, "low": seen.low, "high": seen.high}
    known = {"novelty": novelty, "scale": scale, "warnings": "; ".join(dict.fromkeys(warnings))}
    return row | {name: value for name, value in known.items() if value is not None}


def count_image(file_name, shape, nuclei, seen=None):
    """The row of one image in counts.csv.

    Args:
        shape: height and width; nuclei: the rows of :func:`measurement_table`.
        seen: the result of :func:`view_columns`.

    Returns:
        dict: image, height, width, nuclei, median_area_px (empty without nuclei), and ``seen``.
    """
    median = float(np.median([n["area_px"] for n in nuclei])) if nuclei else ""
    row = {"image": file_name, "height": shape[0], "width": shape[1], "nuclei": len(nuclei)}
    return {**row, "median_area_px": median, **(seen or view_columns(None))}


def columns_of(rows, first=()):
    """``first``, then the other keys of the rows in order of appearance."""
    return list(dict.fromkeys([*first, *(key for row in rows for key in row)]))


def to_csv(rows, columns):
    """Rows of dicts as the text of a CSV file with a header.

    Fractions get four decimals, below 1 four digits. A missing key gives an empty cell; keys that are not
    among ``columns`` are left out (:func:`columns_of` gives all).
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, "", "ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _short(value) for key, value in row.items()})
    return text.getvalue()


def _short(value):
    if not isinstance(value, float) or not value % 1:
        return value
    return f"{value:.4f}" if abs(value) >= 1 else f"{value:.4g}"
