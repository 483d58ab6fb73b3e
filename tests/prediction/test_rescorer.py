"""Features of detections, and scores from them: against loops, hand-made cases and a slow network."""

import json

import numpy as np
import pytest
from tiny import tiny_config

from nucleus_course._util.errors import UserError
from nucleus_course.prediction.rescorer import FEATURES, REACH, Rescorer, describe, mask_certainty
from nucleus_course.prediction.segmenter import MaskRCNN, build


def column(features, name):
    return features[:, FEATURES.index(name)]


def case(count=9, seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 30, (count, 2))], axis=1).astype("float32")
    scores = rng.permutation(np.linspace(0.03, 0.97, count)).astype("float32")
    return boxes, scores, rng.random((count, 28, 28)).astype("float32")


def rescorer(seed=0, networks=3, units=4):
    rng = np.random.default_rng(seed)
    count = len(FEATURES)
    shapes = [(count,), (count,), (networks, count, units)]
    shapes += [(networks, units), (networks, units), (networks,)]
    arrays = [rng.normal(size=shape).astype("float32") for shape in shapes]
    arrays[1] = np.abs(arrays[1]) + 0.5
    return Rescorer(*arrays, info={"split": "train"})


def test_features_by_loops():
    boxes, scores, probs = case()
    found = describe(boxes, scores, probs)
    assert found.shape == (9, len(FEATURES)) and found.dtype == np.float32
    sides = [(b[2] - b[0], b[3] - b[1]) for b in boxes.astype(float)]
    sure = [i for i in range(9) if scores[i] >= 0.5]
    sizes = [np.log(np.sqrt(h * w)) for h, w in sides]
    for i, (h, w) in enumerate(sides):
        best = 0.0
        for j in range(9):
            if scores[j] <= scores[i]:
                continue
            shared = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
            shared = float(max(shared[0], 0) * max(shared[1], 0))
            best = max(best, shared / (h * w + sides[j][0] * sides[j][1] - shared))
        expected = {
            "class": np.log(scores[i] / (1 - scores[i])),
            "certainty": np.log((c := mask_certainty(probs[i : i + 1])[0]) / (1 - c)),
            "sharp": (probs[i] >= 0.7).sum() / (probs[i] >= 0.5).sum(),
            "rim": (probs[i] >= 0.7).sum() / (probs[i] >= 0.3).sum(),
            "fill": (probs[i] >= 0.5).mean(),
            "elongation": abs(np.log(h / w)),
            "size": sizes[i],
            "relative_size": sizes[i] - np.median([sizes[j] for j in sure]),
            "overlap": best,
            "sureness": np.mean([scores[j] for j in sure]),
            "crowd": np.log(1 + len(sure)),
            "clutter": sum(s >= 0.05 for s in scores) / len(sure),
        }
        assert list(expected) == list(FEATURES)
        np.testing.assert_allclose(found[i], list(expected.values()), rtol=1e-4, atol=1e-5)


def test_features_do_not_depend_on_the_order_of_detections():
    boxes, scores, probs = case()
    order = np.random.default_rng(1).permutation(9)
    turned, straight = (
        describe(boxes[order], scores[order], probs[order]),
        describe(boxes, scores, probs),
    )
    np.testing.assert_allclose(turned, straight[order], rtol=1e-6)


def test_features_without_a_sure_detection_and_without_any():
    boxes, scores, probs = case()
    found = describe(boxes, scores * 0.4, probs)
    assert (column(found, "sureness") == 0).all() and (column(found, "crowd") == 0).all()
    assert (column(found, "clutter") == 6).all() and np.isfinite(
        found
    ).all()  # 6, though none is sure: the cap is 8
    assert np.isfinite(describe(boxes, scores * 0 + 1, probs * 0)).all()
    assert describe(boxes[:0], scores[:0], probs[:0]).shape == (0, len(FEATURES))
    assert rescorer()(boxes[:0], scores[:0], probs[:0]).shape == (0,)


def test_of_equal_scores_the_first_counts_as_the_better():
    boxes = np.array([[0, 0, 10, 10], [0, 5, 10, 15]], "float32")
    found = describe(boxes, np.array([0.8, 0.8], "float32"), np.ones((2, 4, 4), "float32"))
    np.testing.assert_allclose(column(found, "overlap"), [0, 1 / 3], rtol=1e-6)


def test_scores_are_the_mean_of_the_networks_one_by_one():
    own, rng = rescorer(), np.random.default_rng(5)
    features = rng.normal(size=(6, len(FEATURES))).astype("float32") * 9
    expected = []
    for row in features:
        x = np.clip((row - own.mean) / own.scale, -REACH, REACH)
        said = []
        for e in range(3):
            hidden = np.maximum(x @ own.hidden_kernel[e] + own.hidden_bias[e], 0)
            said.append(1 / (1 + np.exp(-(hidden @ own.kernel[e] + own.bias[e]))))
        expected.append(np.mean(said))
    np.testing.assert_allclose(own.scores(features), expected, rtol=1e-5)
    assert own.scores(features).dtype == np.float32


def test_mask_certainty_by_hand():
    probs = np.array(
        [[[0.9, 0.7], [0.2, 0.1]], [[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.0], [0.0, 0.0]]], "float32"
    )
    np.testing.assert_allclose(mask_certainty(probs), [0.8, 0, 0.5], rtol=1e-6)


def test_a_model_folder_keeps_its_rescorer_and_loses_a_stale_one(tmp_path):
    model = build(tiny_config())
    model.rescorer = rescorer()
    model.save(tmp_path)
    loaded = MaskRCNN.load(tmp_path).rescorer
    for name in ("mean", "scale", "hidden_kernel", "hidden_bias", "kernel", "bias"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model.rescorer, name))
    assert loaded.info == {"split": "train"}
    first = json.loads((tmp_path / "rescoring.json").read_text())["mean"][0]
    assert str(first) == str(model.rescorer.mean[0])  # no more digits than float32 needs
    other = build(tiny_config())
    other.save(tmp_path)
    assert MaskRCNN.load(tmp_path).rescorer is None and not (tmp_path / "rescoring.json").exists()


def test_prediction_takes_the_rescorers_scores(tmp_path):
    image = np.random.default_rng(2).integers(0, 255, (64, 64, 3), "uint8")
    model = build(tiny_config())
    plain = model.predict(image)
    assert len(plain) > 3
    model.rescorer = rescorer()
    found = model.predict(image)
    assert sorted(map(tuple, found.boxes.tolist())) == sorted(map(tuple, plain.boxes.tolist()))
    assert (np.diff(found.scores) <= 0).all()
    trace = model.trace(image)
    probs = 1 / (1 + np.exp(-trace.mask_logits))
    expected = model.rescorer(trace.boxes[trace.kept], trace.class_scores[trace.kept], probs)
    np.testing.assert_allclose(found.scores, np.sort(expected)[::-1], atol=1e-5)
    np.testing.assert_allclose(trace.detections.scores, found.scores, atol=1e-5)
    # A score threshold gives the same detections as a cut afterwards, even if new scores are higher.
    cut = float(np.median(found.scores))
    np.testing.assert_array_equal(
        model.predict(image, score_threshold=cut).boxes, found.confident(cut).boxes
    )


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda v: v.update(format=2), "another version"),
        (lambda v: v.update(features=["class"]), "another version"),
        (lambda v: v.pop("kernel"), "incomplete or damaged"),
        (lambda v: v.update(bias=[0.0]), "incomplete or damaged (bias)"),
        (lambda v: v["mean"].pop(), "incomplete or damaged (mean"),
        (lambda v: v["scale"].__setitem__(0, float("nan")), "incomplete or damaged (scale)"),
        (lambda v: v.update(more=1), "incomplete or damaged"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, change, word):
    rescorer().save(tmp_path)
    path = tmp_path / "rescoring.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="nucleus-course rescore") as error:
        Rescorer.load(tmp_path)
    assert word in str(error.value) and str(path) in str(error.value)


def test_a_file_that_is_no_json(tmp_path):
    (tmp_path / "rescoring.json").write_text("{")
    with pytest.raises(UserError, match=r"rescoring\.json: not JSON"):
        Rescorer.load(tmp_path)
    assert Rescorer.load(tmp_path / "none") is None
