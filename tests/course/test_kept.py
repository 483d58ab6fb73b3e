"""Kept predictions: found by weights and images, unpacked, or computed in another process."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nucleus_course as nc
from nucleus_course._util.errors import UserError
from nucleus_course.course import kept
from nucleus_course.course import setup as course

ROOT = Path(__file__).resolve().parents[2]
COMPACT = ROOT / "data" / "weights" / "compact"


@pytest.fixture(scope="module")
def two():
    sample = nc.load_dataset("sample", "all", progress=False)
    return sample.subset(list(sample.ids[:2]))


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A temporary project folder."""
    (tmp_path / "notebooks" / "kept").mkdir(parents=True)
    monkeypatch.setattr(kept, "project_root", lambda: tmp_path)
    monkeypatch.setattr(kept, "work_folder", lambda: tmp_path)
    monkeypatch.delenv(course.WEIGHTS_VARIABLE, raising=False)
    return tmp_path


def test_weights_are_read_without_their_network(monkeypatch):
    monkeypatch.delenv(course.WEIGHTS_VARIABLE, raising=False)
    found = kept.find_weights(verbose=False)
    point = json.loads((COMPACT / "thresholds.json").read_text())
    assert found.thresholds.score == point["score"] and found.config.name == "compact"
    assert (found.rescorer is not None) == (COMPACT / "rescoring.json").exists()


def test_the_key_changes_with_the_threshold(monkeypatch, tmp_path):
    mine = shutil.copytree(COMPACT, tmp_path / "mine")
    monkeypatch.setenv(course.WEIGHTS_VARIABLE, str(mine))
    before = kept.find_weights(verbose=False).key
    point = json.loads((mine / "thresholds.json").read_text())
    (mine / "thresholds.json").write_text(json.dumps({**point, "score": 0.99}))
    after = kept.find_weights(verbose=False)
    assert after.key != before and after.thresholds.score == 0.99
    monkeypatch.setenv(course.WEIGHTS_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=course.WEIGHTS_VARIABLE):
        kept.find_weights()


def test_what_came_with_the_course_is_unpacked_and_nothing_computed(two, elsewhere, monkeypatch):
    weights = kept.find_weights(verbose=False)
    labels = {one.id: one.labels for one in two}
    computed = []

    def compute(weights, dataset, out, mirrored=0):
        computed.append((out.name, mirrored))
        nc.Predictions.from_label_images(labels).save(out)

    monkeypatch.setattr(kept, "_compute", compute)
    first = kept.predictions_for(weights, two)
    assert len(computed) == 1
    name = computed[0][0]
    packed = elsewhere / "notebooks" / "kept" / f"{name}.gz"
    packed.write_bytes(gzip.compress((elsewhere / name).read_bytes()))
    (elsewhere / name).unlink()
    again = kept.predictions_for(weights, two)
    assert len(computed) == 1 and again.detections == first.detections
    kept.predictions_for(weights, two, mirrored=8)
    kept.predictions_for(weights, two.subset([two.ids[0]]))
    assert len({name for name, _ in computed}) == 3, "other pixels and other images are other files"


def test_a_computation_that_fails_says_why(two, elsewhere, monkeypatch):
    weights = kept.find_weights(verbose=False)
    monkeypatch.setattr(sys, "executable", shutil.which("false") or "false")
    with pytest.raises(UserError, match="ended early"):
        kept.predictions_for(weights, two)


def test_nothing_of_this_loads_a_backend():
    code = (
        "import sys; from nucleus_course import course; course.find_weights(verbose=False);"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_other_process_gives_what_the_model_gives(two, elsewhere):
    one = two.subset([two.ids[0]])
    weights = kept.find_weights(verbose=False)
    model = course.find_model(verbose=False)
    record = one[0]
    np.testing.assert_array_equal(
        kept.predictions_for(weights, one).images[record.id].label_image(model.thresholds.score),
        nc.predict_dataset(model, one, progress=False)
        .images[record.id]
        .label_image(model.thresholds.score),
    )
    mirrored = kept.predictions_for(weights, one, mirrored=32).images[record.id]
    assert (mirrored.height, mirrored.width) == tuple(side + 64 for side in record.labels.shape)
    found = kept.candidates_for(weights, one, record.id)
    assert 0 < len(found) <= 400 and found.mask_probs.shape[1:] == (28, 28)


def test_predictions_that_ship_are_those_of_the_shipped_weights():
    from nucleus_course.course import find_weights

    key = find_weights(verbose=False).key
    shipped = sorted((Path(__file__).resolve().parents[2] / "notebooks" / "kept").glob("*.gz"))
    kinds = [path.name.split("-")[0] for path in shipped]
    # Of the sample and of the real images: notebook 4's, notebook 5's with mirrored edges, one explorer's boxes.
    assert (kinds.count("predictions"), kinds.count("candidates")) == (4, 2)
    stale = [path.name for path in shipped if f"-{key}-" not in path.name]
    assert stale == [], "run notebooks 4 and 5 on both data sets, then notebooks/build.py --keep"
    assert sum(path.stat().st_size for path in shipped) < 6_000_000
