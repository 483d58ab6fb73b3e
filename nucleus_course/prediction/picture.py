"""Drawing nuclei: outlines on an image, a label image in colour, and a notebook cell's picture."""

import base64
import colorsys
import io

import numpy as np

from nucleus_course._util.text import pluralize
from nucleus_course.data.read import to_rgb8
from nucleus_course.data.slides import LARGE

ORANGE = (230, 159, 0)  # Okabe and Ito's
CELL_BYTES = 200_000  # of a PNG in a notebook cell, at most
CELL_SIDES = (512, 384, 256, 160)  # pixels; with the last, any picture is below CELL_BYTES


def draw_outlines(image, labels):
    """A copy of an image (H, W, 3) uint8 with the outline of each label (H, W) in orange."""
    from skimage.segmentation import find_boundaries

    painted = image.copy()
    painted[find_boundaries(labels, mode="inner")] = ORANGE
    return painted


def colour_labels(labels):
    """A label image (H, W) as (H, W, 3) uint8 with a black background; successive labels get distant hues."""
    # Steps of the golden ratio spread the hues evenly.
    hues = np.arange(256) * 0.618034 % 1
    palette = [colorsys.hsv_to_rgb(hue, 0.6, 1) for hue in hues]
    colours = (np.array(palette) * 255).astype("uint8")[labels % 256]
    colours[labels == 0] = 0
    return colours


def detections_html(found):
    """The HTML of a notebook cell: the nuclei of Detections at their operating point, with a caption.

    Args:
        found: Detections or LabelDetections. The outlines are drawn on ``found.image``, or else on the network's
            input (``found.canonical``).
    """
    if found.height * found.width >= LARGE:
        sure = len(found.confident())
        return (
            f"<figure><figcaption>{pluralize(sure, 'nucleus', 'nuclei')} with a score of at least "
            f"{found.thresholds.score:g}, on {found.height} x {found.width} pixels: too large to be drawn here"
            "</figcaption></figure>"
        )
    image = found.image
    if image is None and found.canonical is not None:
        image = found.canonical.image
    labels = found.label_image()
    nuclei = pluralize(int(labels.max(initial=0)), "nucleus", "nuclei")
    caption = (
        f"{nuclei} with a score of at least {found.thresholds.score:g}, "
        f"of {pluralize(len(found), 'detection')}"
    )
    way = "as colours" if image is None else "outlined on the image"
    alt = f"{nuclei} {way}, {found.height} x {found.width} pixels"
    if not labels.size:
        return f"<figure><figcaption>{caption}</figcaption></figure>"
    png, width = _small_png(labels, image)
    return (
        f'<figure style="margin:0"><img alt="{alt}" width="{width}" style="image-rendering:pixelated" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _small_png(labels, image):
    """A PNG of fewer than CELL_BYTES bytes, and the width to show it at (small images are enlarged)."""
    from PIL import Image

    image = None if image is None else to_rgb8(image)
    for side in CELL_SIDES:
        scale = min(1, side / max(labels.shape))
        height, width = (max(1, round(n * scale)) for n in labels.shape)
        rows = (np.arange(height) + 0.5) * labels.shape[0] / height
        columns = (np.arange(width) + 0.5) * labels.shape[1] / width
        small = labels[rows.astype(int)[:, None], columns.astype(int)]
        if image is None:
            picture = colour_labels(small)
        else:
            shrunk = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
            picture = draw_outlines(np.array(shrunk), small)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="PNG", optimize=True)
        if file.tell() < CELL_BYTES:
            break
    return file.getvalue(), width * max(1, 256 // max(height, width))
