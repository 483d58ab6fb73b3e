"""From any image to detections at its size, and the trace of the steps."""

import dataclasses
import re

import numpy as np
import pytest
from tiny import disc_dataset, lively_model

from nucleus_course._util.errors import UserError
from nucleus_course.config import Thresholds
from nucleus_course.data.preprocess import to_network
from nucleus_course.geometry.boxes import dilate, iou_matrix
from nucleus_course.models.weights.folder import named_variables
from nucleus_course.prediction.datasets import predict_dataset, predict_variants
from nucleus_course.prediction.pipeline import assemble, prepare, round_up
from nucleus_course.prediction.trace import trace_image
from nucleus_course.presets import get_preset


def lively(**changes):
    return lively_model(Thresholds(score=0.1), **changes)


@pytest.fixture(scope="module")
def model():
    return lively()


@pytest.fixture(scope="module")
def image():
    return disc_dataset(1)[0].image


def check(found, height, width, limit=20, slack=0.0):
    """Everything a Detections promises."""
    n = len(found)
    assert (found.height, found.width) == (height, width) and n <= limit
    assert found.boxes.shape == (n, 4) and found.boxes.dtype == np.float32
    assert found.scores.shape == (n,) and found.scores.dtype == np.float32
    assert found.mask_probs.shape == (n, 28, 28) and found.mask_probs.dtype == np.float32
    assert (np.diff(found.scores) <= 0).all() and ((found.scores > 0) & (found.scores <= 1)).all()
    assert (found.boxes >= -slack).all()
    assert (found.boxes[:, 2:] <= [height + slack, width + slack]).all()
    assert ((found.boxes[:, 2:] - found.boxes[:, :2]) > 0).all()
    assert ((found.mask_probs >= 0) & (found.mask_probs <= 1)).all()
    assert found.label_image().shape == (height, width)


# ------------------------------------------------------------------ any image


def test_every_kind_of_image_says_the_same(model, image):
    expected = model.predict(image)
    assert len(expected) > 3
    check(expected, *image.shape[:2])
    grey = image[..., 0]
    forms = {
        "grey": grey,
        "one channel": grey[..., None],
        "RGBA": np.concatenate([image, np.full((*grey.shape, 1), 255, "uint8")], axis=2),
        "uint16": image.astype("uint16") * 257,
        "big-endian uint16": (grey.astype("uint16") * 257).astype(">u2"),
    }
    for name, form in forms.items():
        found = model.predict(form)
        np.testing.assert_array_equal(found.boxes, expected.boxes, err_msg=name)
        np.testing.assert_array_equal(found.mask_probs, expected.mask_probs, err_msg=name)
    # Percentiles of floats fall between those of whole numbers: the same but for one grey level.
    grey_input = dataclasses.replace(model.config, input="canonical")
    for form in (image / 255.0, grey.astype("float32")):
        seen = prepare(form, grey_input).input
        np.testing.assert_allclose(seen, prepare(image, grey_input).input, atol=1.01 / 127.5)


def test_channels_first(model, image):
    """Height and width are the last two axes; with a wide image, taking the first two would show."""
    wide = image[:40]
    found, expected = model.predict(np.moveaxis(wide, 2, 0)), model.predict(wide)
    check(found, 40, image.shape[1])
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    found, expected = model.trace(np.moveaxis(wide, 2, 0)), model.trace(wide)
    np.testing.assert_array_equal(found.detections.boxes, expected.detections.boxes)


@pytest.mark.parametrize("size", [(37, 51), (1, 1), (64, 64), (3, 100)])
def test_every_size_comes_back_as_it_was(model, size):
    image = np.random.default_rng(1).integers(0, 255, (*size, 3)).astype("uint8")
    check(model.predict(image), *size)


def test_a_large_image(model):
    image = np.random.default_rng(1).integers(0, 255, (1400, 1400)).astype("uint8")
    check(model.predict(image, max_detections=20), 1400, 1400)


@pytest.mark.parametrize(
    "image",
    [np.zeros((40, 56), "uint8"), np.full((40, 56, 3), 255, "uint8")],
    ids=["black", "white"],
)
def test_an_even_image_is_no_trouble(model, image):
    check(model.predict(image), 40, 56)


def test_nothing_found():
    model = lively()
    named_variables(model.network)["mrcnn_class_logits/bias"].assign([50.0, -50.0])
    found = model.predict(np.zeros((40, 56), "uint8"))
    check(found, 40, 56)
    assert len(found) == 0 and found.masks.shape == (0, 40, 56)
    assert found.rles() == [] and not found.label_image().any()
    trace = model.trace(np.zeros((40, 56), "uint8"))
    assert len(trace.detections) == 0 and trace.kept.shape == (0,)
    assert trace.mask_logits.shape == (0, 28, 28)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 5, 6, 7)), np.zeros(9), np.full((8, 8), np.nan), np.zeros((0, 5)), np.array([["a"] * 8] * 8)],
    ids=["four axes", "one axis", "NaN", "no pixels", "text"],
)  # fmt: skip
def test_what_is_no_image_is_refused(model, bad):
    with pytest.raises(UserError):
        model.predict(bad)


# ------------------------------------------------------------------ options


def test_options(model, image):
    everything = model.predict(image)
    middle = float(np.median(everything.scores))
    assert len(model.predict(image, score_threshold=middle)) == (everything.scores >= middle).sum()
    assert len(model.predict(image, max_detections=3)) == 3
    loose, strict = model.predict(image, nms_iou=0.9), model.predict(image, nms_iou=0.01)
    assert len(loose) >= len(everything) >= len(strict)
    assert model.predict(image, mask_threshold=0.2).thresholds.mask == 0.2
    assert model.thresholds == Thresholds(score=0.1), "options change the call, not the model"


def test_nms_holds_what_it_promises(model, image):
    boxes = model.predict(image, nms_iou=0.3).boxes
    iou = iou_matrix(boxes, boxes) - np.eye(len(boxes))
    assert len(boxes) > 3 and iou.max() <= 0.3 + 1e-5


def test_new_weights_count_at_once(image):
    """The compiled pieces read the variables at each call, on every backend."""
    model = lively()
    before = model.predict(image)
    kernel = named_variables(model.network)["mrcnn_class_logits/kernel"]
    kernel.assign(kernel.numpy()[:, ::-1])
    after = model.predict(image)
    assert not np.array_equal(before.scores, after.scores)


def test_many_sizes_do_not_warn_of_retracing(caplog):
    """Each size is compiled once, and TensorFlow, which counts calls of one function, says nothing of it."""
    from nucleus_course.prediction.engines.compiled import compiled

    double = compiled(lambda x: 2 * x, lively())
    for side in range(1, 12):
        assert double(np.ones((1, side), "float32")).shape == (1, side)
    assert not [record for record in caplog.records if "retracing" in record.getMessage()]


def test_flips_average_the_four_views(image):
    """With all four flips, an image and its mirror image have mirrored detections."""
    model = lively()
    found, mirrored = model.predict(image, flips=4), model.predict(image[:, ::-1].copy(), flips=4)
    check(found, *image.shape[:2], slack=1e-4)  # a weighted mean rounds
    assert len(found) == len(mirrored) > 3
    width = image.shape[1]
    expected = found.boxes.copy()
    expected[:, [1, 3]] = width - found.boxes[:, [3, 1]]
    order = np.lexsort(np.round(expected, 1).T)
    other = np.lexsort(np.round(mirrored.boxes, 1).T)
    np.testing.assert_allclose(mirrored.boxes[other], expected[order], atol=1e-2)
    np.testing.assert_allclose(mirrored.scores[other], found.scores[order], atol=1e-4)


# ------------------------------------------------------------------ coordinates


@pytest.mark.parametrize("preset", ["paper-resnet50", "compact"])
def test_a_rectangle_lies_where_it_should_in_network_pixels(preset):
    """Through upsampling and padding: rows 21..40, columns 10..52 of a 60 x 75 image."""
    config = get_preset(preset).model
    image = np.zeros((60, 75, 3), "uint8")
    image[21:41, 10:53] = 255
    prepared, scale = prepare(image, config), config.upsample
    assert prepared.shape == (60, 75) and prepared.views == ((False, False),)
    np.testing.assert_array_equal(prepared.windows, [[60 * scale, 75 * scale]])
    np.testing.assert_array_equal(prepared.window, [60 * scale, 75 * scale])
    (network,) = prepared.input
    assert network.shape[0] % config.pad_multiple == network.shape[1] % config.pad_multiple == 0
    real = network[: int(60 * scale), : int(75 * scale)]
    assert not network[int(60 * scale) :].any() and not network[:, int(75 * scale) :].any()
    np.testing.assert_array_equal(real, to_network(image, config))
    bright = real[..., 0] > (real[..., 0].max() + real[..., 0].min()) / 2
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    box = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
    np.testing.assert_array_equal(box, np.array([21, 10, 41, 53]) * scale)


@pytest.mark.parametrize("preset", ["paper-resnet50", "compact"])
def test_a_predicted_box_and_mask_come_back_to_the_images_pixels(preset):
    config = get_preset(preset).model
    network = np.array([[21, 10, 41, 53], [0, 0, 60, 75]], "float32") * config.upsample
    scores = np.array([0.5, 0.9], "float32")
    # A mask that fills the box; its grid may extend beyond it.
    size, reach = config.mask_size, config.mask_roi_scale
    inside = np.abs((np.arange(size) + 0.5) / size - 0.5) * reach <= 0.5
    probs = np.repeat((inside[:, None] & inside)[None].astype("float32"), 2, axis=0)
    found = assemble(config, (60, 75), network, scores, probs, Thresholds())
    np.testing.assert_array_equal(found.boxes, [[0, 0, 60, 75], [21, 10, 41, 53]])
    assert (np.diff(found.scores) < 0).all()
    rows, columns = np.nonzero(found.masks[1])
    edges = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
    cell = np.array([20, 43, 20, 43]) * reach / size
    assert (np.abs(edges - [21, 10, 41, 53]) <= np.maximum(1, cell)).all()
    if reach == 1.0:
        np.testing.assert_array_equal(edges, [21, 10, 41, 53])


def test_padding_brings_no_detections(model):
    """37 x 51 pixels are padded to 64 x 64; what is found lies inside, and no proposal's centre outside."""
    image = np.random.default_rng(4).integers(0, 255, (37, 51, 3)).astype("uint8")
    trace = model.trace(image)
    assert trace.input.shape == (64, 64, 3) and trace.window.tolist() == [37, 51]
    for boxes in (trace.proposals, trace.boxes):
        assert (boxes >= 0).all() and (boxes <= [37, 51, 37, 51]).all()


def test_padded_sides_are_few_and_large_enough():
    multiple = get_preset("paper-resnet50").model.pad_multiple
    sides = [round_up(side, multiple) for side in range(1, 2801)]
    assert all(b >= side and b % multiple == 0 for side, b in enumerate(sides, 1))
    assert len(set(sides)) < 30


# ------------------------------------------------------------------ whole data sets


def test_predict_dataset_is_predict_image_by_image(model):
    data = disc_dataset(3)
    predictions = predict_dataset(model, data, progress=False)
    assert list(predictions.images) == list(data.ids)
    for record in data:
        found, kept = model.predict(record.image), predictions.images[record.id]
        np.testing.assert_array_equal(kept.boxes, found.boxes)
        np.testing.assert_array_equal(kept.scores, found.scores)
        assert kept.rles == found.rles() and (kept.height, kept.width) == record.labels.shape
    assert predictions.score_threshold == 0.1


def test_variants_are_predictions_at_other_thresholds(model):
    data = disc_dataset(2)
    variants = predict_variants(model, data, (0.2, 0.5), (0.4, 0.6), progress=False)
    assert set(variants) == {(0.2, 0.4), (0.2, 0.6), (0.5, 0.4), (0.5, 0.6)}
    for (nms_iou, mask), predictions in variants.items():
        for record in data:
            found = model.predict(record.image, nms_iou=nms_iou, mask_threshold=mask)
            np.testing.assert_array_equal(predictions.images[record.id].scores, found.scores)
            assert predictions.images[record.id].rles == found.rles()


# ------------------------------------------------------------------ the trace


@pytest.fixture(scope="module")
def trace(model, image):
    return model.trace(image)


def test_trace_has_every_name_of_its_docstring(trace):
    returns = trace_image.__doc__.split("Returns:")[1]
    named = set(re.findall(r"``([a-z_]+)``", returns))
    assert len(named) >= 20 and named == set(trace)
    assert trace.boxes is trace["boxes"]
    with pytest.raises(AttributeError):
        trace.nothing
    lines = repr(trace).splitlines()
    assert len(lines) == len(trace)
    assert lines[2].startswith("input") and "float32 (128, 128, 3)" in lines[2]


def test_traces_detections_are_predicts(model, image, trace):
    expected = model.predict(image)
    found = trace.detections
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    # Prediction folds BatchNorm.
    np.testing.assert_allclose(found.mask_probs, expected.mask_probs, atol=1e-3)
    np.testing.assert_allclose(found.mask_boxes, expected.mask_boxes, atol=1e-3)


def test_traces_shapes_fit_together(model, trace):
    config = model.config
    anchors, proposals, kept = len(trace.anchors), len(trace.proposals), len(trace.kept)
    assert [p.shape for p in trace.pyramid] == [(128 // s, 128 // s, 8) for s in config.strides]
    stages = [(128 // s, 128 // s, w) for s, w in zip(config.strides, config.widths)]
    assert [c.shape for c in trace.stages] == stages
    assert trace.rpn_logits.shape == (anchors, 2) and trace.rpn_deltas.shape == (anchors, 4)
    scores = 1 / (1 + np.exp(trace.rpn_logits[:, 0] - trace.rpn_logits[:, 1]))
    np.testing.assert_allclose(trace.rpn_scores, scores, rtol=1e-4)
    assert trace.pooled.shape == (proposals, 7, 7, 8) and trace.class_logits.shape == (proposals, 2)
    assert (np.diff(trace.proposal_scores) <= 0).all()
    assert set(trace.proposal_levels) <= {2, 3, 4, 5}
    assert trace.boxes.shape == trace.box_deltas.shape == (proposals, 4)
    assert trace.mask_boxes.shape == (kept, 4) and trace.mask_pooled.shape == (kept, 14, 14, 8)
    assert trace.mask_logits.shape == (kept, 28, 28)
    assert (np.diff(trace.class_scores[trace.kept]) <= 0).all()
    np.testing.assert_allclose(trace.mask_boxes, dilate(trace.boxes[trace.kept], 1.2), atol=1e-3)
