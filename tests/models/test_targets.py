"""Targets of the RPN, the box head and the mask head against a slow reference, image by image."""

import keras
import numpy as np
import pytest
from keras import ops
from tiny import discs, ground_truth, random_boxes, tiny_config

from nucleus_course.data.labels import pad_ground_truth
from nucleus_course.models.mask_rcnn.anchors import pyramid_anchors
from nucleus_course.models.mask_rcnn.targets import (
    mask_targets,
    pack_masks,
    roi_targets,
    rpn_targets,
    sample,
)

SIDE = 64
LAYOUT = dict(
    strides=(4, 8, 16, 32, 64), anchor_sizes=(8, 16, 32, 64, 128), anchor_ratios=(0.5, 1.0, 2.0)
)
ANCHORS = pyramid_anchors(SIDE, SIDE, *LAYOUT.values())


def config(**changes):
    return tiny_config(**LAYOUT, **changes)


def seed():
    return keras.random.SeedGenerator(4)


def numpy(values):
    return {k: ops.convert_to_numpy(v) for k, v in values.items()}


def tensors(*arrays):
    return [ops.convert_to_tensor(a) for a in arrays]


def scene(*counts, slots=16, seed=0):
    """Label maps with that many nuclei, and their padded ground truth."""
    rng = np.random.default_rng(seed)
    return ground_truth([discs(SIDE, SIDE, n, rng)[0] for n in counts], slots)


# ------------------------------------------------------------------ the slow reference


def iou_row(box, boxes):
    height = np.maximum(
        np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0]), np.float32(0)
    )
    width = np.maximum(
        np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1]), np.float32(0)
    )
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return height * width / ((box[2] - box[0]) * (box[3] - box[1]) + areas - height * width)


def encode(box, anchor, stds=(0.1, 0.1, 0.2, 0.2)):
    (y1, x1, y2, x2), (a1, b1, a2, b2) = box.astype("float64"), anchor.astype("float64")
    delta = [((y1 + y2) - (a1 + a2)) / 2 / (a2 - a1), ((x1 + x2) - (b1 + b2)) / 2 / (b2 - b1)]
    return np.array(delta + [np.log((y2 - y1) / (a2 - a1)), np.log((x2 - x1) / (b2 - b1))]) / stds


def left_out(labels, box):
    """Whether the pixel under the box's centre, moved into the image, is of an excluded nucleus."""
    y, x = np.clip(
        np.floor([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]).astype(int), 0, SIDE - 1
    )
    return labels[y, x] == -1


def slow_rpn(labels, boxes, ids, c):
    """({positive anchor: its nucleus' slot}, {negative anchors}) of one image."""
    real = boxes[ids > 0]
    table = np.array([iou_row(a, real) for a in ANCHORS]).reshape(len(ANCHORS), len(real))
    best_of_nucleus = table.max(axis=0)
    positive, negative = {}, set()
    for i in range(len(ANCHORS)):
        best = table[i].max(initial=0)
        forced = any(table[i, g] == best_of_nucleus[g] >= 1e-3 for g in range(len(real)))
        if best >= c.rpn_positive_iou or forced:
            positive[i] = int(table[i].argmax())
        elif best < c.rpn_negative_iou and not left_out(labels, ANCHORS[i]):
            negative.add(i)
    return positive, negative


def slow_rois(proposals, valid, labels, boxes, ids, c):
    """({candidate: its nucleus' slot}, {negative candidates}); the ground truth follows the proposals."""
    real = boxes[ids > 0]
    candidates = [(i, p) for i, p in enumerate(proposals) if valid[i]]
    candidates += [(len(proposals) + g, box) for g, box in enumerate(boxes) if ids[g] > 0]
    positive, negative = {}, set()
    for i, box in candidates:
        row = iou_row(box, real)
        if row.max(initial=0) >= c.roi_positive_iou:
            positive[i] = int(row.argmax())
        elif not left_out(labels, box):
            negative.add(i)
    return positive, negative


def slow_mask(labels, box, number, c):
    """Share of each cell's samples that fall on the nucleus."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * c.mask_roi_scale
    low, step = centre - half, 2 * half / c.mask_size
    out = np.zeros((c.mask_size, c.mask_size))
    for i in range(c.mask_size):
        for j in range(c.mask_size):
            for p in range(c.mask_samples):
                for q in range(c.mask_samples):
                    y = int(np.floor(low[0] + (i + (p + 0.5) / c.mask_samples) * step[0]))
                    x = int(np.floor(low[1] + (j + (q + 0.5) / c.mask_samples) * step[1]))
                    if (
                        0 <= y < labels.shape[0]
                        and 0 <= x < labels.shape[1]
                        and labels[y, x] == number
                    ):
                        out[i, j] += 1 / c.mask_samples**2
    return out


# ------------------------------------------------------------------ sampling


def test_sample_takes_only_what_is_allowed_as_much_as_there_is_and_all_alike():
    rng = np.random.default_rng(0)
    mask = rng.random((4, 50)) > 0.6
    mask[2] = False
    mask[3] = True
    allowed = [set(np.flatnonzero(row)) for row in mask]
    drawn, generator = np.zeros(50), seed()
    for _ in range(200):
        index, chosen = (
            ops.convert_to_numpy(v) for v in sample(ops.convert_to_tensor(mask), 10, generator)
        )
        assert index.shape == chosen.shape == (4, 10) and index.dtype == np.int32
        for row in range(4):
            taken = index[row, chosen[row]]
            assert (
                len(set(taken)) == len(taken) == min(10, len(allowed[row]))
                and set(taken) <= allowed[row]
            )
        drawn[index[3]] += 1
    assert drawn.sum() == 2000 and 15 < drawn.min() and drawn.max() < 70  # about 40 each


def test_sample_of_more_than_there_are_places():
    index, chosen = sample(ops.ones((1, 3), "bool"), 10, seed())
    assert (
        sorted(ops.convert_to_numpy(index)[0]) == [0, 1, 2] and ops.convert_to_numpy(chosen).all()
    )


# ------------------------------------------------------------------ region proposal network


def crowd():
    """375 nuclei of 3 x 2 pixels on one image."""
    labels = np.zeros((SIDE, SIDE), "int32")
    places = [(y, x) for y in range(0, 60, 4) for x in range(0, 62, 2)][:375]
    for n, (y, x) in enumerate(places, 1):
        labels[y : y + 3, x : x + 2] = n
    return labels


def rpn_scenes():
    yield "zero, one, some", *scene(0, 1, 6)
    labels = crowd()
    assert labels.max() == 375
    yield "375", *ground_truth([labels], 384)
    rng = np.random.default_rng(2)
    yield "more than slots", *ground_truth([discs(SIDE, SIDE, 12, rng, (3, 6))[0]], 4)


@pytest.mark.parametrize(
    ("name", "labels", "boxes", "ids"),
    list(rpn_scenes()),
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_rpn_targets_in_full(name, labels, boxes, ids):
    """With room for every anchor nothing is left to chance: exactly the reference's positives and negatives."""
    c = config(rpn_anchors_per_image=2 * len(ANCHORS), rpn_positive_iou=0.5)
    found = numpy(rpn_targets(ANCHORS, *tensors(boxes, ids, labels), c, seed()))
    for b in range(len(labels)):
        positive, negative = slow_rpn(labels[b], boxes[b], ids[b], c)
        at = {k: v[b] for k, v in found.items()}
        is_pos, used = at["weight_box"] > 0, at["weight"] > 0
        assert set(at["index"][is_pos]) == set(positive) and is_pos.sum() == len(positive)
        assert set(at["index"][used & ~is_pos]) == negative and (used & ~is_pos).sum() == len(
            negative
        )
        np.testing.assert_array_equal(at["label"], is_pos)
        assert set(np.unique(at["weight"])) <= {0, 1}
        for place in np.flatnonzero(is_pos):
            anchor = at["index"][place]
            expected = encode(boxes[b][ids[b] > 0][positive[anchor]], ANCHORS[anchor])
            np.testing.assert_allclose(at["deltas"][place], expected, atol=1e-4)
        assert not at["deltas"][~used].any() or np.isfinite(at["deltas"]).all()
    if name == "375":
        assert len(set(positive.values())) > 250, (
            "far more nuclei than the anchors' stride has room for, and no row is lost"
        )


def test_rpn_sampling_is_a_subset_of_the_right_size():
    labels, boxes, ids = scene(0, 1, 8)
    c = config(rpn_anchors_per_image=16, rpn_positive_iou=0.3, rpn_negative_iou=0.3)
    generator, seen = seed(), set()
    for _ in range(5):
        found = numpy(rpn_targets(ANCHORS, *tensors(boxes, ids, labels), c, generator))
        for b in range(3):
            positive, negative = slow_rpn(labels[b], boxes[b], ids[b], c)
            at = {k: v[b] for k, v in found.items()}
            is_pos, used = at["weight_box"] > 0, at["weight"] > 0
            assert set(at["index"][is_pos]) <= set(positive) and is_pos.sum() == min(
                8, len(positive)
            )
            assert set(at["index"][used & ~is_pos]) <= negative and used.sum() == 16
            assert len(set(at["index"][used])) == 16
        seen.add(tuple(found["index"][0][found["weight"][0] > 0]))
    assert len(seen) == 5, "each step draws anew"


# ------------------------------------------------------------------ heads


def roi_scene():
    labels, boxes, ids = scene(0, 1, 6)
    rng = np.random.default_rng(7)
    proposals = np.stack([random_boxes(rng, 40, SIDE, SIDE, 4, 30) for _ in range(3)])
    proposals[:, :12] = np.where(
        ids[:, :12, None] > 0, boxes[:, :12] + rng.uniform(-1.5, 1.5, (3, 12, 4)), proposals[:, :12]
    )
    return labels, boxes, ids, proposals.astype("float32"), rng.random((3, 40)) > 0.2


def test_roi_targets_in_full():
    labels, boxes, ids, proposals, valid = roi_scene()
    c = config(rois_per_image=200, roi_positive_fraction=0.5)
    found = numpy(roi_targets(*tensors(proposals, valid, boxes, ids, labels), c, seed()))
    candidates = np.concatenate([proposals, boxes], axis=1)
    for b in range(3):
        positive, negative = slow_rois(proposals[b], valid[b], labels[b], boxes[b], ids[b], c)
        at = {k: v[b] for k, v in found.items()}
        is_pos, used = at["label"] > 0, at["weight"] > 0
        assert len(positive) == is_pos.sum() and len(negative) == (used & ~is_pos).sum()
        expected = {tuple(candidates[b, i]): slot for i, slot in positive.items()}
        assert {tuple(box) for box in at["boxes"][is_pos]} == set(expected)
        assert {tuple(box) for box in at["boxes"][used & ~is_pos]} == {
            tuple(candidates[b, i]) for i in negative
        }
        assert (
            not at["boxes"][~used].any()
            and not at["deltas"][~is_pos].any()
            and not at["ids"][~is_pos].any()
        )
        for box, delta, number in zip(at["boxes"][is_pos], at["deltas"][is_pos], at["ids"][is_pos]):
            slot = expected[tuple(box)]
            assert number == ids[b][slot]
            np.testing.assert_allclose(delta, encode(boxes[b][slot], box), atol=1e-4)
        assert is_pos[: is_pos.sum()].all(), "positives come first"
    assert not found["label"][0].any() and found["weight"][0].sum() == valid[0].sum(), (
        "no nucleus: negatives all the same"
    )


def test_roi_sampling_counts():
    labels, boxes, ids, proposals, valid = roi_scene()
    c = config(rois_per_image=12, roi_positive_fraction=1 / 3)
    assert c.positive_rois == 4
    found = numpy(roi_targets(*tensors(proposals, valid, boxes, ids, labels), c, seed()))
    assert found["boxes"].shape == (3, 12, 4)
    for b in range(3):
        positive, negative = slow_rois(proposals[b], valid[b], labels[b], boxes[b], ids[b], c)
        n = min(4, len(positive))
        assert found["label"][b].sum() == n and found["label"][b, :n].all()
        assert found["weight"][b].sum() == min(12, n + len(negative))


def test_ground_truth_joins_the_proposals():
    """Even if no proposal is valid, every nucleus is a positive."""
    labels, boxes, ids, proposals, valid = roi_scene()
    c = config(rois_per_image=60, roi_positive_fraction=0.5)
    found = numpy(
        roi_targets(*tensors(proposals, np.zeros_like(valid), boxes, ids, labels), c, seed())
    )
    for b in range(3):
        assert set(found["ids"][b][found["label"][b] > 0]) == set(ids[b][ids[b] > 0])
        assert not found["deltas"][b].any()
        assert found["weight"][b].sum() == (ids[b] > 0).sum()


def test_nuclei_beyond_the_slots_are_neither_objects_nor_background():
    rng = np.random.default_rng(2)
    original = discs(SIDE, SIDE, 12, rng, (3, 6))[0]
    labels, boxes, ids = ground_truth([original], 4)
    excluded = np.setdiff1d(np.unique(original), np.append(ids, 0))
    assert (
        len(excluded) == 8
        and (labels[0] == np.where(np.isin(original, excluded), -1, original)).all()
    )
    # Proposals right on all twelve: four positives, eight in neither set.
    proposals = ground_truth([original], 12)[1]
    c = config(rois_per_image=60, roi_positive_fraction=0.5)
    found = numpy(
        roi_targets(*tensors(proposals, np.ones((1, 12), bool), boxes, ids, labels), c, seed())
    )
    assert found["label"].sum() == 8 and found["weight"].sum() == 8, (
        "four proposals, four ground-truth boxes"
    )
    found = numpy(
        rpn_targets(
            ANCHORS, *tensors(boxes, ids, labels), config(rpn_anchors_per_image=3000), seed()
        )
    )
    used = found["index"][0][(found["weight"][0] > 0) & (found["label"][0] == 0)]
    assert len(used) and not any(left_out(labels[0], ANCHORS[i]) for i in used)


def test_pad_ground_truth():
    labels = np.array([[1, 1, 0], [0, 3, 7]], "int32")
    boxes = np.arange(12, dtype="float32").reshape(3, 4)
    padded = pad_ground_truth(labels, boxes, np.array([1, 3, 7], "int32"), 5)
    np.testing.assert_array_equal(padded[0], labels)
    np.testing.assert_array_equal(padded[1], np.concatenate([boxes, np.zeros((2, 4))]))
    np.testing.assert_array_equal(padded[2], [1, 3, 7, 0, 0])
    cut, _, ids = pad_ground_truth(labels, boxes, np.array([1, 3, 7], "int32"), 2, seed=1)
    gone = ({1, 3, 7} - set(ids)).pop()
    np.testing.assert_array_equal(cut, np.where(labels == gone, -1, labels))
    again = pad_ground_truth(labels, boxes, np.array([1, 3, 7], "int32"), 2, seed=1)
    np.testing.assert_array_equal(ids, again[2])


# ------------------------------------------------------------------ masks


@pytest.mark.parametrize(("scale", "samples"), [(1.0, 1), (1.2, 2), (1.0, 3)])
def test_mask_targets_are_those_of_the_loop(scale, samples):
    labels, _, _ = scene(8, 5)
    rng = np.random.default_rng(9)
    boxes = random_boxes(rng, 6, SIDE, SIDE, 5, 40)
    boxes[0] = [-4, 50, 20, 70]  # over two edges
    boxes[1] = [10, 10, 10, 10]  # blank
    batch = np.array([0, 0, 1, 1, 0, 1], "int32")
    ids = np.array([1, 0, 2, 3, 4, 1], "int32")
    c = config(mask_pool=7, mask_roi_scale=scale, mask_samples=samples)
    found = ops.convert_to_numpy(mask_targets(*tensors(labels, boxes, batch, ids), c))
    assert found.shape == (6, 14, 14) and found.dtype == np.float32
    for n in range(6):
        # A sample on a pixel's edge may fall on either side in float32.
        wrong = (
            np.abs(found[n] - slow_mask(labels[batch[n]], boxes[n].astype("float64"), ids[n], c))
            > 1e-6
        )
        assert wrong.mean() < 0.01, n


def test_pack_masks_without_limit_takes_every_positive():
    labels, boxes, ids, proposals, valid = roi_scene()
    c = config(rois_per_image=200, roi_positive_fraction=0.5, mask_slots_per_image=0)
    rois = roi_targets(*tensors(proposals, valid, boxes, ids, labels), c, seed())
    packed, batch, numbers = (ops.convert_to_numpy(v) for v in pack_masks(rois, c, seed()))
    rois = numpy(rois)
    expected = {
        (b, *rois["boxes"][b, i], rois["ids"][b, i]) for b, i in zip(*np.nonzero(rois["label"]))
    }
    real = numbers > 0
    assert {(b, *box, n) for b, box, n in zip(batch[real], packed[real], numbers[real])} == expected
    assert real.sum() == len(expected) > 5


def test_pack_masks_shares_the_slots_over_the_batch():
    """One crowded and two empty images: the crowded one gets all nine slots."""
    labels, boxes, ids = scene(0, 12, 0)
    c = config(rois_per_image=40, roi_positive_fraction=0.5, mask_slots_per_image=3)
    none = np.zeros((3, 5, 4), "float32"), np.zeros((3, 5), bool)
    rois = roi_targets(*tensors(*none, boxes, ids, labels), c, seed())
    packed, batch, numbers = (ops.convert_to_numpy(v) for v in pack_masks(rois, c, seed()))
    assert (
        packed.shape == (9, 4)
        and (batch == 1).all()
        and (numbers > 0).all()
        and len(set(numbers)) == 9
    )
    slots = {tuple(boxes[1, i]): ids[1, i] for i in range(12)}
    assert all(slots[tuple(box)] == n for box, n in zip(packed, numbers))
