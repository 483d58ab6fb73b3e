"""The benchmark: operations against closed forms, fixed numbers of detections, its table; no time is asserted."""

import io
import json
from itertools import product

import numpy as np
import pytest
from tiny import tiny_config

from nucleus_course._util.errors import UserError
from nucleus_course.benchmark import case, runner
from nucleus_course.presets import get_preset

# ------------------------------------------------------------------ operations


def test_a_convolution_in_closed_form():
    from nucleus_course.benchmark.operations import convolution_macs

    assert convolution_macs(14, 14, 3, 256, 256) == 14 * 14 * 9 * 256 * 256


def thin_trunk(config, height, width):
    """Multiply-accumulates of the thin trunk by hand: the stem, then basic blocks."""
    height, width = -(-height // 2), -(-width // 2)
    total, channels = height * width * 9 * 3 * config.widths[0], config.widths[0]
    for stage, (blocks, filters) in enumerate(zip(config.blocks, config.widths)):
        for block in range(blocks):
            if block == 0 and stage > 0:
                height, width = -(-height // 2), -(-width // 2)
            total += height * width * 9 * (channels * filters + filters * filters)
            if channels != filters or (block == 0 and stage > 0):
                total += height * width * channels * filters
            channels = filters
    return total


def test_operations_of_a_small_network_in_closed_form():
    from nucleus_course.benchmark.operations import count_operations
    from nucleus_course.models.mask_rcnn.network import MaskRCNNNetwork

    config = tiny_config(
        pyramid_channels=8, rpn_channels=8, box_head_channels=16, mask_head_channels=8
    )
    parts = count_operations(MaskRCNNNetwork(config), 64, 96, detections=5)
    assert parts["trunk"] == thin_trunk(config, 64, 96)
    cells = [32 * 48, 16 * 24, 8 * 12, 4 * 6]
    assert parts["pyramid"] == sum(n * 8 * (c + 9 * 8) for n, c in zip(cells, config.widths))
    assert parts["rpn"] == sum(n * (9 * 8 * 8 + 8 * 2 + 8 * 4) for n in [*cells, 2 * 3])
    assert parts["box head"] == 64 * 2 * (49 * 8 * 16 + 16 * 16 + 16 * 10)
    assert parts["mask head"] == 5 * (4 * 196 * 9 * 8 * 8 + 196 * 4 * 8 * 8 + 784 * 8 * 2)
    assert parts["total"] == sum(v for k, v in parts.items() if k != "total")


@pytest.mark.slow
def test_operations_of_resnet50_are_the_published_ones():
    """He et al. give 3.8 GMAC at 224 x 224 for a ResNet-50 with its stride in the first 1x1 convolution."""
    from nucleus_course.benchmark.operations import count_operations
    from nucleus_course.models.mask_rcnn.network import MaskRCNNNetwork

    network = MaskRCNNNetwork(get_preset("paper-resnet50").model)
    small, large = (count_operations(network, side, side, 30) for side in (512, 1024))
    assert small["trunk"] / 1e9 == pytest.approx(3.86 * (512 / 224) ** 2, rel=0.02)
    assert large["trunk"] == 4 * small["trunk"] and large["rpn"] == 4 * small["rpn"]
    assert large["total"] <= 4.5 * small["total"]


# ------------------------------------------------------------------ a fixed number of detections


@pytest.mark.parametrize("count", [1, 30, 400])
@pytest.mark.parametrize("side", [256, 1024])
def test_nms_keeps_exactly_the_number_asked_for(count, side):
    from nucleus_course.prediction.pipeline import select

    boxes, scores = case.fixed_candidates(count, 1000, side, side)
    assert boxes.shape == (1, 1000, 4) and scores.shape == (1, 1000)
    assert (np.diff(scores[0]) < 0).all()
    assert boxes.min() >= 0 and boxes.max() <= side
    kept, kept_scores = select(boxes, scores, 0.3, 400)
    assert len(kept) == len(kept_scores) == count
    assert case.fixed_candidates(400, 300, side, side)[0].shape == (1, 400, 4)


def test_measure_tells_the_first_run_from_the_warm_ones():
    calls = []
    numbers = case.measure(lambda: calls.append(1))
    assert numbers["runs"] == len(calls) - 2 >= case.FEWEST_RUNS
    assert set(numbers) == {"first_ms", "ms", "cpu_ms", "runs"}


# ------------------------------------------------------------------ cases and table


def test_cases_cover_what_is_promised(monkeypatch):
    monkeypatch.setattr(runner, "find_spec", lambda name: None)  # nothing optional is installed
    cases = runner.list_cases()
    predict = [c for c in cases if c["kind"] == "predict" and "skip" not in c]
    promised = set(product(("compact", "paper-resnet50"), (256, 512, 1024), (30, 400)))
    assert {(c["preset"], c["side"], c["detections"]) for c in predict} == promised
    skipped = {c.get("runtime", c["kind"]): c["skip"] for c in cases if "skip" in c}
    assert set(skipped) == {"openvino", "torchvision", "stardist", "tasks"}
    assert all(reason.startswith("not installed: pip install") for reason in skipped.values())
    assert {c["kind"] for c in cases} == set(runner.KINDS)
    monkeypatch.setattr(runner, "find_spec", lambda name: object())
    monkeypatch.setattr(runner, "cpu_has_bfloat16", lambda: True)
    there = {c["runtime"] for c in runner.list_cases(only="predict")}
    others = {"openvino", "openvino float32", "torchvision", "stardist"}
    assert there == {"keras", "keras bfloat16", *others}


def test_only_and_quick():
    assert {c["kind"] for c in runner.list_cases(only="decode, evaluate")} == {"decode", "evaluate"}
    quick = [c for c in runner.list_cases(quick=True) if c["kind"] == "predict" and "skip" not in c]
    assert len(quick) <= 2
    with pytest.raises(UserError, match="unknown kind 'speed' in --only: choose from machine"):
        runner.list_cases(only="speed")


def test_a_run_writes_what_it_prints(tmp_path, monkeypatch):
    """Two real cases, each in its own process, one that fails and one that is not installed."""
    from rich.console import Console

    monkeypatch.setattr(
        runner, "list_cases",
        lambda *a: [
            {"kind": "decode", "data": "sample"},
            {"kind": "evaluate", "images": 2, "detections": 20},
            {"kind": "decode", "data": str(tmp_path / "nothing.zip")},
            {"kind": "predict", "runtime": "torchvision", "skip": "not installed: pip install torchvision"},
        ],
    )  # fmt: skip
    out = tmp_path / "benchmark.json"
    with open(tmp_path / "printed.txt", "w") as file:
        report = runner.run_benchmark(out, console=Console(file=file, width=200))
    assert json.loads(out.read_text()) == report
    decode, evaluate, failed, skipped = report["cases"]
    assert decode["ms"] > 0 and decode["peak_mb"] > 0 and "reopened in" in decode["note"]
    assert evaluate["ms"] > 0 and "2 images, 20 detections" in evaluate["note"]
    assert "nothing.zip" in failed["error"] and "ms" not in failed
    assert skipped["skip"].startswith("not installed")
    assert report["machine"]["cores"] >= 1 and "numpy" in report["machine"]["versions"]
    printed = (tmp_path / "printed.txt").read_text()
    assert "pip install torchvision" in printed and "reopened in" in printed
    with pytest.raises(UserError, match="--out"):
        runner.run_benchmark(tmp_path / "missing" / "benchmark.json")


def test_an_interruption_costs_no_finished_case(tmp_path, monkeypatch):
    from rich.console import Console

    def stopped(case, threads=None):
        if case["kind"] == "decode":
            raise KeyboardInterrupt
        return {**case, "ms": 1.0}

    monkeypatch.setattr(runner, "run_case", stopped)
    out = tmp_path / "benchmark.json"
    with pytest.raises(KeyboardInterrupt):
        runner.run_benchmark(
            out, quick=True, only="input,decode,slide", console=Console(file=io.StringIO())
        )
    assert [case["kind"] for case in json.loads(out.read_text())["cases"]] == ["input"]


# ------------------------------------------------------------------ the peers' operators


def test_roi_align_in_the_peers_place_is_torchvisions():
    """Against a loop over the definition: two images, boxes inside and at the rim."""
    torch = pytest.importorskip("torch")
    from nucleus_course.benchmark.peers import roi_align

    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 9, 12)).astype("float32")
    rois = np.array([[0, 1, 2, 30, 20], [1, 0, 0, 48, 36], [1, 10.5, 3.25, 14, 5]], "float32")
    tensors = torch.from_numpy(features), torch.from_numpy(rois)
    got = roi_align(*tensors, 0.25, 2, 3, 2, False).numpy()
    for row, (index, x1, y1, x2, y2) in zip(got, rois * [1, 0.25, 0.25, 0.25, 0.25]):
        tall, wide = max(y2 - y1, 1), max(x2 - x1, 1)
        for i in range(2):
            for j in range(3):
                samples = []
                for a in (0.25, 0.75):
                    for b in (0.25, 0.75):
                        y = np.clip(y1 + (i + a) * tall / 2, 0, 8)
                        x = np.clip(x1 + (j + b) * wide / 3, 0, 11)
                        v, u = int(min(y, 7)), int(min(x, 10))
                        p, q = y - v, x - u
                        f = features[int(index)]
                        top = f[:, v, u] * (1 - q) + f[:, v, u + 1] * q
                        bottom = f[:, v + 1, u] * (1 - q) + f[:, v + 1, u + 1] * q
                        samples.append(top * (1 - p) + bottom * p)
                np.testing.assert_allclose(row[:, i, j], np.mean(samples, axis=0), atol=1e-5)


def test_nms_in_the_peers_place_is_greedy():
    torch = pytest.importorskip("torch")
    from nucleus_course.benchmark.peers import nms
    from nucleus_course.geometry.boxes import iou_matrix

    rng = np.random.default_rng(1)
    low = rng.uniform(0, 60, (80, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 30, (80, 2))], axis=1).astype("float32")
    scores = rng.uniform(0, 1, 80).astype("float32")
    overlap, expected = iou_matrix(boxes, boxes), []
    for i in np.argsort(-scores):
        if all(overlap[i, kept] <= 0.4 for kept in expected):
            expected.append(i)
    kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4)
    np.testing.assert_array_equal(kept.numpy(), expected)
    assert len(nms(torch.zeros(0, 4), torch.zeros(0), 0.5)) == 0


@pytest.mark.parametrize(("count", "side"), [(30, 256), (400, 256), (400, 512), (1, 64)])
def test_fixed_stars_are_as_many_as_said(count, side):
    """``count`` patches of certain pixels with separate circles around them: NMS can neither join nor split them."""
    from skimage.measure import label, regionprops

    from nucleus_course.benchmark.peers import fixed_stars

    probability, distances = fixed_stars(count, side)
    patches = regionprops(label(probability >= 0.5))
    assert len(patches) == count and all(patch.area == 9 for patch in patches)
    radius = distances.max()
    centres = np.array([patch.centroid for patch in patches])
    assert distances.shape == (side, side, 32) and radius > 4
    assert (centres > radius).all() and (centres < side - radius).all()
    if count > 1:
        gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2) + 1e9 * np.eye(count)
        assert gaps.min() >= 2 * radius
        assert 2 * np.sqrt(2) < radius, "patches are small: one suppresses its neighbours"
