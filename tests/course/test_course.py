"""What the notebooks rely on: the choice of data and weights, numbers against slow references, and figures."""

import numpy as np
import pytest

import nucleus_course as nc
from nucleus_course._util.errors import UserError
from nucleus_course.course import numbers as course_numbers
from nucleus_course.course import setup as course


@pytest.fixture(scope="module")
def sample():
    return nc.load_dataset("sample", "all", progress=False)


# ---------------------------------------------------------------- data, weights, paths


def test_sample_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setenv(course.DATA_VARIABLE, "sample")
    data = course.find_data()
    assert data.source == "sample" and data.synthetic and data.evaluation_split == "all"
    assert "synthetic" in capsys.readouterr().out


def test_a_wrong_variable_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setenv(course.DATA_VARIABLE, "no/such/folder")
    with pytest.raises(UserError, match=course.DATA_VARIABLE):
        course.find_data()


def test_a_folder_in_bbbc038_s_layout_is_taken(monkeypatch, tmp_path, capsys):
    (tmp_path / "stage1_train" / "abc" / "images").mkdir(parents=True)
    monkeypatch.setenv(course.DATA_VARIABLE, str(tmp_path))
    data = course.find_data()
    assert not data.synthetic and data.evaluation_split == "validation"
    assert str(tmp_path) not in capsys.readouterr().out, "no absolute path is printed"


def test_nothing_found_means_the_sample(monkeypatch):
    monkeypatch.delenv(course.DATA_VARIABLE, raising=False)
    monkeypatch.setattr("nucleus_course.reports.doctor.find_bbbc038", lambda: None)
    assert course.find_data(verbose=False).source == "sample"


def test_damaged_weights_are_an_error_and_missing_ones_are_said(monkeypatch, tmp_path, capsys):
    from nucleus_course.models.weights import folder

    monkeypatch.delenv(course.WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr(folder, "PLACES", (tmp_path,))
    model = course.find_model()
    assert not model.trained and "untrained" in capsys.readouterr().out
    model.save(tmp_path / "compact")
    assert course.find_model(verbose=False).trained
    weights = tmp_path / "compact" / "weights.h5"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="weights.h5 does not match SHA256SUMS beside it"):
        course.find_model()
    weights.unlink()
    with pytest.raises(UserError, match="has no weights.h5"):
        course.find_model()


def test_shown_paths_are_short(tmp_path):
    root = course.project_root()
    assert course.shown(root / "data" / "bbbc038") == "data/bbbc038"
    assert not course.shown(tmp_path / "deep" / "er" / "images").startswith("/")


def test_work_folder_is_inside_out_and_can_be_emptied():
    folder = course.work_folder("test-of-the-course", fresh=True)
    (folder / "old").write_text("x")
    assert folder.parent.name == "course" and folder.parent.parent.name == "out"
    assert not list(course.work_folder("test-of-the-course", fresh=True).iterdir())
    folder.rmdir()


@pytest.mark.slow
def test_unknown_weights_in_the_variable_are_an_error(monkeypatch):
    monkeypatch.setenv(course.WEIGHTS_VARIABLE, "no-such-weights")
    with pytest.raises(UserError):
        course.find_model()


def test_crowded_and_typical_records(sample):
    crowded = course.pick_crowded(sample)
    assert crowded.count >= 2 and crowded.id == course.pick_crowded(sample).id
    typical = course.pick_each_type(sample)
    assert [one.type for one in typical] == [
        kind for kind in nc.data.IMAGE_TYPES if kind in sample.types.values()
    ]


# ---------------------------------------------------------------- numbers


def test_touching_and_edge_ids():
    labels = np.array([[1, 1, 0, 0], [2, 0, 3, 0], [0, 0, 3, 4], [0, 0, 0, 0]])
    assert course_numbers.touching_ids(labels).tolist() == [1, 2, 3, 4]
    assert course_numbers.edge_touching_ids(labels).tolist() == [1, 2, 4]
    assert course_numbers.touching_ids(np.zeros((3, 3), int)).size == 0


def test_best_anchor_equals_all_anchors():
    from nucleus_course.geometry.boxes import iou_matrix
    from nucleus_course.models.mask_rcnn.anchors import pyramid_anchors

    rng = np.random.default_rng(5)
    corner = rng.uniform(0, 90, (40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(3, 38, (40, 2))], axis=1).astype(
        np.float32
    )
    for name in ("compact", "paper-resnet50"):
        config = nc.get_preset(name).model
        side = int(128 * config.upsample)
        anchors = pyramid_anchors(
            side, side, config.strides, config.anchor_sizes, config.anchor_ratios
        )
        slow = iou_matrix(boxes * config.upsample, anchors).max(axis=1)
        fast = course_numbers.best_anchor_iou(boxes, 128, 128, config)
        np.testing.assert_allclose(fast, slow, atol=1e-5)


def test_sample_bilinear_weighs_each_cell_by_its_distance():
    rng = np.random.default_rng(8)
    grid = rng.uniform(0, 1, (4, 7)).astype(np.float32)
    y, x = rng.uniform(-1, 5, 6), rng.uniform(-1, 8, 5)
    rows, columns = (
        np.maximum(0, 1 - np.abs(np.clip(at - 0.5, 0, n - 1)[:, None] - np.arange(n)))
        for at, n in zip((y, x), grid.shape)
    )
    found = course_numbers.sample_bilinear(grid, y, x)
    np.testing.assert_allclose(found, rows @ grid @ columns.T, atol=1e-5)


def test_f1_of_two_agrees_with_the_evaluation(sample):
    one = sample[0]
    moved = np.roll(one.labels, 3, axis=1)
    report = nc.evaluate(
        sample.subset([one.id]), nc.Predictions.from_label_images({one.id: moved}), progress=False
    )
    assert 100 * course_numbers.f1_of_two(one.labels, moved) == pytest.approx(
        report.metrics["f1_50"]
    )
    assert course_numbers.f1_of_two(one.labels, one.labels) == 1.0
    empty = np.zeros((4, 4), int)
    assert course_numbers.f1_of_two(empty, empty) == 1.0


def test_edge_overlap_by_hand():
    truth = np.zeros((6, 6), int)
    truth[0:2, 0:2] = 1  # at the edge, 4 pixels
    truth[3:5, 2:4] = 2  # inside
    found = np.zeros((6, 6), int)
    found[0:2, 0:1] = 7  # half of the first
    assert course_numbers.edge_overlap(truth, found) == 0.5
    assert course_numbers.edge_overlap(truth, np.zeros((6, 6), int)) == 0.0


def test_a_claim_is_printed_with_its_truth(capsys):
    course.claim("one is one", np.bool_(True))
    course.claim("one is two", 1 == 2)
    assert capsys.readouterr().out == "true: one is one\nNOT TRUE HERE: one is two\n"


def test_a_figure_has_its_caption_as_alternative_text(monkeypatch):
    from matplotlib.figure import Figure

    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    course.show((Figure(), 'Two discs, "touching" & <cut>.'))
    assert shown[0]["text/plain"].startswith("Two discs")
    text = "Two discs, &quot;touching&quot; &amp; &lt;cut&gt;."
    assert f'<img alt="{text}"' in shown[0]["text/html"]
    assert f"<em>{text}</em></figcaption>" in shown[0]["text/html"]
