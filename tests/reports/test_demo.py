"""The main job of `nucleus-course demo`, cut to two epochs of training and one look at each image."""

import dataclasses
import io
import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from rich.console import Console

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    from nucleus_course.reports import demo as module

    out = tmp_path_factory.mktemp("demo") / "out"
    console = Console(record=True, width=100, file=io.StringIO())
    best = module._best_weights

    def once(trained):
        model, weights = best(trained)
        model.thresholds = dataclasses.replace(model.thresholds, diameters=(), flips=1)
        return model, weights

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEPS", 2)
        patch.setattr(module, "_best_weights", once)
        found = module.run_demo(out, epochs=2, console=console)
    return out, found, console.export_text()


def test_demo_writes_what_it_says(demo):
    out, found, text = demo
    for name in (
        "report.json",
        "report_all.json",
        "predictions.json",
        "run/log.csv",
        "run/weights/weights.h5",
    ):
        assert (out / name).is_file(), name
        assert name.split("/")[0] in text
    assert len(found["figures"]) >= 3
    for path in found["figures"]:
        picture = np.array(Image.open(path))
        assert picture.shape[0] > 100 and picture.std() > 5
        assert path.relative_to(out).as_posix() in text


def test_demo_covers_the_sample(demo):
    from nucleus_course import Predictions, load_dataset

    out, found, _ = demo
    dataset = load_dataset("sample", "all", progress=False)
    predictions = Predictions.load(out / "predictions.json")
    assert tuple(sorted(predictions.images)) == dataset.ids
    for image_id in dataset.ids:
        labels = tifffile.imread(out / "labels" / f"{image_id}.tif")
        assert labels.shape == dataset.sizes[image_id]
    everything = json.loads((out / "report_all.json").read_text())
    assert set(everything["images"]) == set(dataset.ids)
    validation = json.loads((out / "report.json").read_text())
    assert set(validation["images"]) == set(dataset.subset("validation").ids)


def test_demo_says_that_it_is_synthetic_and_which_weights_it_used(demo):
    from nucleus_course.models.weights.folder import shipped_weights

    _, found, text = demo
    assert "SYNTHETIC" in text
    if "compact" in shipped_weights():
        assert found["weights"] == "compact" and "shipped 'compact' weights" in text
    else:
        assert found["weights"] == "brief" and "This copy has NO trained weights" in text
