"""Writes fixed_case/: truth, predictions, and the oracles' metrics. Run once; the files are committed."""

import json
from pathlib import Path

import numpy as np
from fakes import image_predictions, random_case, with_boxes
from test_metrics_oracles import oracle_metrics

from nucleus_course.prediction.interchange import Predictions

FOLDER = Path(__file__).parent / "fixed_case"


def main():
    dataset, _, masks = random_case(1234, images=4)
    masks = with_boxes(np.random.default_rng(5), masks)
    found = {key: image_predictions(*masks[key], dataset[key].labels.shape) for key in dataset.ids}
    predictions = Predictions(found, 0.45)
    types = {key: dataset[key].type for key in dataset.ids}
    truth = Predictions.from_label_images(
        {key: dataset[key].labels for key in dataset.ids}, info={"types": types}
    )
    truth.save(FOLDER / "truth.json")
    predictions.save(FOLDER / "predictions.json")
    expected, _ = oracle_metrics(dataset, predictions, masks, 0.45, 0)
    (FOLDER / "expected.json").write_text(
        json.dumps({k: float(v) for k, v in expected.items()}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
