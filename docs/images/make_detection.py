"""Draw docs/images/detection.png: images of the embedded sample, and the nuclei that a model finds in them.

    python docs/images/make_detection.py [WEIGHTS]

The sample is synthetic, and the picture says so: BBBC038's images may not be stored in the repository.
"""

import sys
from pathlib import Path

from nucleus_course.backend import load_backend

PLACE = Path(__file__).with_name("detection.png")
POSITIONS = (1, 10, 2, 20)  # a look each


def main(weights="compact"):
    load_backend(None)
    from nucleus_course import MaskRCNN, load_dataset
    from nucleus_course.figures.style import FOUND, outline, panels, picture, stretch

    dataset = load_dataset("sample", "all", progress=False)
    model = MaskRCNN.load(weights)
    figure, axes = panels(2 * len(POSITIONS), len(POSITIONS), side=2.5, ratio=1.08)
    for column, position in enumerate(POSITIONS):
        record = dataset[position]
        labels = model.predict(record.image).label_image()
        below = axes[len(POSITIONS) + column]
        picture(axes[column], stretch(record.image), f"{record.type} (synthetic)")
        picture(below, stretch(record.image), f"{labels.max()} found, {record.count} drawn")
        outline(below, labels, FOUND)
    figure.savefig(PLACE, dpi=90, facecolor="white")
    print(f"written: {PLACE}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
