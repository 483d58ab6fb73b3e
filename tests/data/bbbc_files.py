"""Small data sets in BBBC038's layout, made for a test."""

import zipfile
from pathlib import Path

import cv2
import numpy as np


def png(array):
    """PNG bytes of grey, RGB or RGBA, 8 or 16 bits."""
    if array.ndim == 3:
        array = array[..., [2, 1, 0, *range(3, array.shape[2])]]
    return cv2.imencode(".png", array)[1].tobytes()


def square_mask(shape, top, left, side, value=255):
    mask = np.zeros(shape, np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


def tiny_files(ids=("a", "b", "c"), shape=(24, 30)):
    """{path: bytes}: images with two square nuclei each, at (2, 3) side 5 and (10, 12) side 7."""
    files = {}
    for number, image_id in enumerate(ids):
        rng = np.random.default_rng(number)
        files[f"{image_id}/images/{image_id}.png"] = png(
            rng.integers(0, 60, (*shape, 3)).astype(np.uint8)
        )
        files[f"{image_id}/masks/m1.png"] = png(square_mask(shape, 2, 3, 5))
        files[f"{image_id}/masks/m2.png"] = png(square_mask(shape, 10, 12, 7))
    return files


def write_folder(folder, files):
    for name, data in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Path(folder)


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return Path(path)
