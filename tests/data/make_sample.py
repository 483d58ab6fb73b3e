"""Draws the embedded sample: synthetic images in BBBC038's layout, for the demo, the tests and offline use.

    python tests/data/make_sample.py nucleus_course/data/sample.zip

No pixel of it comes from a microscope: its ids begin with ``synthetic``, and the file SYNTHETIC.txt makes the
data set say so. The seed gives the same pixels on every machine, and the same bytes for the same version of zlib.
"""

import sys
import zipfile
from pathlib import Path

import numpy as np
from png_writer import png_bytes
from sample_scenes import LOOKS, draw_scene

from nucleus_course.data.bbbc038 import SYNTHETIC_MARK

SEED = 2018
COUNT = 32
# Seven looks in turn; as ten is no multiple of seven, every tenth image (the validation split) has another one.
TURN = (
    "small fluorescent",
    "small fluorescent",
    "purple stain",
    "pink-and-purple stain",
    "grey tissue",
    "small fluorescent",
    "large fluorescent",
)
SHAPES = {
    "small fluorescent": (256, 256),
    "large fluorescent": (256, 256),
    "grey tissue": (320, 320),
}
OTHER_SHAPES = {5: (260, 347), 13: (360, 360), 19: (256, 320), 27: (256, 320)}
NUCLEI = {  # sparse, normal, crowded
    "small fluorescent": (8, 30, 80),
    "large fluorescent": (6, 12, 20),
    "purple stain": (18, 28, 55),
    "pink-and-purple stain": (12, 30, 60),
    "grey tissue": (10, 22, 40),
}
STAMP = (2018, 3, 1, 0, 0, 0)
NOTE = (
    "Synthetic images in the layout of BBBC038, drawn by tests/data/make_sample.py (seed {seed}).\n"
    "No pixel comes from a microscope. Released under CC0 1.0.\n"
)


def sample_images(seed=SEED, count=COUNT):
    """Yield ``(image id, image uint8 (H, W, 3), labels int32 (H, W))``, in the order of the ids.

    Every image has its own generator, from (seed, number), so that any one can be made alone.
    """
    for number in range(count):
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))
        name = TURN[number % len(TURN)]
        shape = OTHER_SHAPES.get(number, SHAPES.get(name, (256, 256)))
        nuclei = NUCLEI[name][(number // len(TURN) + number) % 3]
        image, labels = draw_scene(
            random,
            LOOKS[name],
            shape,
            count=nuclei,
            clusters=(20, 45, 60)[number % 3],
            blur=(1, 2, 1, 4)[number % 4],
            noise=(60, 100, 160, 80, 40)[number % 5],
        )
        yield f"synthetic-{number:02d}-{name.replace(' ', '-')}", image, labels


def sample_files(seed=SEED, count=COUNT):
    """Yield ``(path inside the data set, bytes)`` of all files, the images as RGBA as in BBBC038."""
    yield SYNTHETIC_MARK, NOTE.format(seed=seed).encode()
    for image_id, image, labels in sample_images(seed, count):
        alpha = np.full((*image.shape[:2], 1), 255, np.uint8)
        yield f"{image_id}/images/{image_id}.png", png_bytes(np.concatenate([image, alpha], axis=2))
        for label in range(1, int(labels.max()) + 1):
            mask = np.where(labels == label, 255, 0).astype(np.uint8)
            yield f"{image_id}/masks/{label:03d}.png", png_bytes(mask, adaptive=False)


def write_sample(folder, seed=SEED, count=COUNT):
    """Write the sample as a folder in BBBC038's layout and return its path."""
    folder = Path(folder)
    for name, data in sample_files(seed, count):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_sample_zip(path, seed=SEED, count=COUNT):
    """Write the sample as a zip with fixed times and permissions, and return its path."""
    path = Path(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sample_files(seed, count):
            info = zipfile.ZipInfo(name, STAMP)
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, data)
    return path


if __name__ == "__main__":
    write_sample_zip(sys.argv[1])
