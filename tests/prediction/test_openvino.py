"""The model outside Keras: the same numbers from ONNX and OpenVINO, and a clear error where they are missing."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import disc_dataset, lively_model, random_boxes, tiny_config

from nucleus_course._util.errors import UserError
from nucleus_course.config import Thresholds
from nucleus_course.prediction.engines.keras_fast import KerasEngine
from nucleus_course.prediction.pipeline import prepare
from nucleus_course.prediction.segmenter import build


@pytest.fixture(scope="module")
def model():
    return lively_model(Thresholds(score=0.1))


@pytest.fixture(scope="module")
def image():
    return disc_dataset(1)[0].image


def matched(expected, found):
    """Each expected detection's counterpart: largest differences of boxes (pixels), scores and masks."""
    distance = np.abs(expected.boxes[:, None] - found.boxes[None]).max(axis=2)
    best = distance.argmin(axis=1)
    assert len(expected) == len(found) and len(set(best)) == len(best)
    boxes = distance.min(axis=1).max()
    scores = np.abs(expected.scores - found.scores[best]).max()
    return boxes, scores, np.abs(expected.mask_probs - found.mask_probs[best]).max()


# ------------------------------------------------------------------ without the packages


def test_missing_package_is_one_line_with_what_to_do(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    with pytest.raises(UserError, match="'openvino' is not installed: pip install openvino onnx"):
        model.use_engine("openvino")


def test_unknown_runtime_precision_and_kind(model):
    with pytest.raises(
        UserError, match="unknown runtime 'tensorrt': choose one of keras, openvino"
    ):
        model.use_engine("tensorrt")
    from nucleus_course.prediction.engines.onnx_model import require_mask_rcnn
    from nucleus_course.prediction.engines.openvino import OpenVINOEngine

    with pytest.raises(UserError, match="unknown precision 'int8'"):
        OpenVINOEngine(model, "int8")
    from nucleus_course.config import UNetConfig

    with pytest.raises(UserError, match="only Mask R-CNN"):
        require_mask_rcnn(SimpleNamespace(config=UNetConfig()))


def test_export_refuses_what_cannot_be(model, tmp_path):
    from nucleus_course.prediction.engines.export import export_model

    with pytest.raises(UserError, match="--size 100 is not a multiple of 32: try 96"):
        export_model(model, tmp_path, size=100)
    with pytest.raises(UserError, match="unknown format 'tflite'"):
        export_model(model, tmp_path, "tflite")


# ------------------------------------------------------------------ OpenVINO


def changed(changes):
    """A model of that architecture with random weights and BatchNorm statistics."""
    from nucleus_course.models.weights.folder import named_variables

    model = lively_model(Thresholds(score=0.1), **changes)
    rng = np.random.default_rng(1)
    for name, variable in sorted(named_variables(model.network).items()):
        if "bn" in name:
            low, high = (0.7, 1.3) if name.endswith(("gamma", "variance")) else (-0.1, 0.1)
            variable.assign(rng.uniform(low, high, tuple(variable.shape)).astype("float32"))
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        # what the paper's presets have and compact has not
        {
            "head_norm": True,
            "anchor_ratios": (0.5, 1.0, 2.0),
            "mask_roi_scale": 1.0,
            "box_passes": 1,
            "canonical_size": 30.0,
        },
    ],
    ids=["compact", "paper"],
)
def test_same_detections_in_float32(changes, image):
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    model = changed(changes)
    expected = model.predict(image)
    assert len(expected) > 3
    model.use_engine("openvino", precision="float32", threads=1)
    boxes, scores, masks = matched(expected, model.predict(image))
    assert boxes < 0.05 and scores < 1e-3 and masks < 1e-2
    model.use_engine("keras")
    np.testing.assert_array_equal(model.predict(image).scores, expected.scores)


def test_candidates_are_those_of_keras_also_in_flipped_views(model, image):
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    from nucleus_course.prediction import flips
    from nucleus_course.prediction.engines.openvino import OpenVINOEngine

    theirs, ours = KerasEngine(model.network), OpenVINOEngine(model, "float32", threads=1)
    prepared = prepare(image, model.config, flips.VIEWS[:2])
    pyramid, boxes, scores = theirs.candidates(prepared)
    other = ours.candidates(prepared)
    assert boxes.shape == other[1].shape == (2, 64, 4)
    np.testing.assert_allclose(other[2], scores, atol=1e-3)
    rows = random_boxes(np.random.default_rng(2), 7, *image.shape[:2])
    rows[0] = [0, 0, *image.shape[:2]]  # enlarged, it reaches beyond the image on all sides
    masks = theirs.masks(pyramid, rows, prepared)
    np.testing.assert_allclose(ours.masks(other[0], rows, prepared), masks, atol=1e-3)
    assert ours.masks(other[0], rows[:0], prepared).shape == (0, 28, 28)


def test_compiled_sizes_are_kept_but_not_for_ever(model):
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    from nucleus_course.prediction.engines import openvino

    def compile_nothing(proto, precision):
        return SimpleNamespace(create_infer_request=lambda: precision)

    engine = openvino.OpenVINOEngine(model, "float32", threads=1)
    engine._compile = compile_nothing
    for side in (64, 128, 192, 256, 64, 320):
        engine._graphs(side, side)
    assert list(engine._sizes) == [(s, s) for s in (192, 256, 64, 320)]
    bfloat16 = openvino.OpenVINOEngine(model, "bfloat16")
    bfloat16._compile = compile_nothing
    assert vars(bfloat16._graphs(64, 64))["proposals"] == "float32", (
        "boxes are never in half precision"
    )


# ------------------------------------------------------------------ export


def test_exported_onnx_gives_what_keras_gives(model, image, tmp_path):
    """detector, the final NMS, masks: the files and export.json are all that is needed."""
    openvino = pytest.importorskip("openvino")
    onnx = pytest.importorskip("onnx")
    from nucleus_course.prediction.engines.export import export_model

    files = export_model(model, tmp_path / "new", "onnx", 128)
    assert sorted(f.name for f in files) == ["detector.onnx", "export.json", "masks.onnx"]
    told = json.loads((tmp_path / "new" / "export.json").read_text())
    assert told["size"] == 128 and told["thresholds"]["nms_iou"] == model.thresholds.nms_iou
    proto = onnx.load(tmp_path / "new" / "detector.onnx")
    assert [i.name for i in proto.graph.input] == told["detector"]["inputs"]
    assert [o.name for o in proto.graph.output] == told["detector"]["outputs"]
    assert {p.key for p in proto.metadata_props} >= {"preset", "nms_iou"}

    prepared = prepare(image, model.config)
    assert prepared.input.shape == (1, 128, 128, 3)
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    detector, masks = (
        core.compile_model(tmp_path / "new" / f"{n}.onnx", "CPU", options)
        for n in ("detector", "masks")
    )
    found = detector({"image": prepared.input, "window": prepared.windows})
    engine = KerasEngine(model.network)
    pyramid, _, scores = engine.candidates(prepared)
    np.testing.assert_allclose(found["scores"], scores[0], atol=1e-3)
    rows = random_boxes(np.random.default_rng(3), 5, *image.shape[:2])
    expected = engine.masks(pyramid, rows, prepared)
    got = masks({**{f"p{level}": found[f"p{level}"] for level in (2, 3, 4, 5)}, "boxes": rows})[
        "masks"
    ]
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_openvino_files_are_whole(model, tmp_path):
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    from nucleus_course.prediction.engines.export import export_model

    files = export_model(model, tmp_path, "openvino", 64)
    names = ["detector.bin", "detector.xml", "export.json", "masks.bin", "masks.xml"]
    assert sorted(f.name for f in files) == sorted(f.name for f in tmp_path.iterdir()) == names
    graph = openvino.Core().read_model(tmp_path / "detector.xml")
    assert list(graph.input("image").shape) == [1, 64, 64, 3]


def test_a_layer_that_cannot_be_written_is_named():
    pytest.importorskip("onnx")
    import keras

    from nucleus_course.prediction.engines.onnx_writer import Graph, write_functional

    x = keras.Input((8, 8, 3))
    model = keras.Model(x, keras.layers.Softmax(name="odd")(x))
    with pytest.raises(NotImplementedError, match="Softmax .odd."):
        write_functional(Graph("g"), model, [("x", 8, 8)])


def test_margins_hold_what_grown_boxes_reach():
    """The padded map contains every sample of an enlarged box."""
    from nucleus_course.prediction.engines.onnx_model import MaskRCNNWriter

    writer = MaskRCNNWriter(build(tiny_config(mask_roi_scale=1.5)), 64, 128)
    for margin, stride in zip(writer.margins, writer.config.strides):
        assert margin * stride >= 0.25 * 128
    assert MaskRCNNWriter(build(tiny_config(mask_roi_scale=1.0)), 64, 64).margins == [0] * 4


def test_an_export_says_how_scores_are_made(model, tmp_path, monkeypatch):
    from nucleus_course.prediction.engines.export import description, export_model
    from nucleus_course.prediction.rescorer import FEATURES, Rescorer

    monkeypatch.setattr(model, "rescorer", None)
    assert description(model, "onnx", 64)["scores"].startswith("times the mean")
    assert (
        description(build(tiny_config(mask_scoring=False)), "onnx", 64)["scores"] == "as they are"
    )
    count = len(FEATURES)
    shapes = (count, (1, count, 2), (1, 2), (1, 2), 1)
    rescorer = Rescorer(np.zeros(count), *map(np.ones, shapes))
    monkeypatch.setattr(model, "rescorer", rescorer)
    assert "rescoring.json" in description(model, "onnx", 64)["scores"]
    pytest.importorskip("onnx")
    files = export_model(model, tmp_path, "onnx", 64)
    names = ["detector.onnx", "export.json", "masks.onnx", "rescoring.json"]
    assert sorted(f.name for f in files) == names
    assert Rescorer.load(tmp_path).bias == rescorer.bias
