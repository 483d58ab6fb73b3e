"""Draw docs/images/detection.png: a stained section that no model here was trained on, and the nuclei found in it.

    python docs/images/make_detection.py [WEIGHTS]

The image comes with scikit-image (immunohistochemistry, Human Protein Atlas), so nothing is downloaded.
"""

import sys
from pathlib import Path

from nucleus_course.backend import load_backend

PLACE = Path(__file__).with_name("detection.png")


def main(weights="compact"):
    load_backend(None)
    from skimage import data

    from nucleus_course import MaskRCNN
    from nucleus_course.course_figures.base import FOUND, outlined, panels, picture

    image = data.immunohistochemistry()
    labels = MaskRCNN.load(weights).predict(image).label_image()
    figure, axes = panels(2, 2, side=4.2)
    picture(axes[0], image, "a stained tissue section, 512 x 512 pixels")
    picture(axes[1], outlined(image, labels, FOUND), f"{labels.max()} nuclei found by {weights}")
    figure.savefig(PLACE, dpi=100, facecolor="white")
    print(f"written: {PLACE}, {labels.max()} nuclei")


if __name__ == "__main__":
    main(*sys.argv[1:2])
