"""Typical wrong answers to the exercises of notebooks 0 to 2, as learners write them."""

import numpy as np

WRONG = {}


def wrong(name):
    def register(function):
        WRONG.setdefault(name, []).append(function)
        return function

    return register


# --- notebook 00
@wrong("box_of")
def inclusive_end(mask):
    rows, columns = np.nonzero(mask)
    return rows.min(), columns.min(), rows.max(), columns.max()


@wrong("box_of")
def x_before_y(mask):
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@wrong("box_of")
def height_and_width(mask):
    rows, columns = np.nonzero(mask)
    return rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1


# --- notebook 01
def _pairs(a, b):
    return {
        (min(i, j), max(i, j)) for i, j in zip(a.ravel().tolist(), b.ravel().tolist()) if i != j
    }


@wrong("touching_pairs")
def rows_only(labels):
    return {pair for pair in _pairs(labels[:, 1:], labels[:, :-1]) if pair[0]}


@wrong("touching_pairs")
def with_background(labels):
    return _pairs(labels[:, 1:], labels[:, :-1]) | _pairs(labels[1:], labels[:-1])


@wrong("touching_pairs")
def both_orders(labels):
    pairs = {
        p for p in _pairs(labels[:, 1:], labels[:, :-1]) | _pairs(labels[1:], labels[:-1]) if p[0]
    }
    return pairs | {(j, i) for i, j in pairs}


@wrong("flip_boxes")
def off_by_one(boxes, width):
    return np.stack(
        [boxes[:, 0], width - 1 - boxes[:, 3], boxes[:, 2], width - 1 - boxes[:, 1]], axis=1
    )


@wrong("flip_boxes")
def edges_not_swapped(boxes, width):
    return np.stack([boxes[:, 0], width - boxes[:, 1], boxes[:, 2], width - boxes[:, 3]], axis=1)


@wrong("flip_boxes")
def flipped_upside_down(boxes, width):
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)


@wrong("recall_under_cap")
def mean_over_images(counts, cap):
    counts = np.maximum(counts, 1)
    return np.mean(np.minimum(counts, cap) / counts)


@wrong("recall_under_cap")
def cap_on_the_total(counts, cap):
    return min(cap, counts.sum()) / counts.sum()


@wrong("recall_under_cap")
def share_of_images(counts, cap):
    return np.mean(counts <= cap)


# --- notebook 02
@wrong("box_iou")
def negative_lengths(a, b):
    shared = (min(a[2], b[2]) - max(a[0], b[0])) * (min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@wrong("box_iou")
def union_counts_twice(a, b):
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]))


@wrong("box_iou")
def plus_one(a, b):
    shared = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0) * max(
        min(a[3], b[3]) - max(a[1], b[1]) + 1, 0
    )
    area = lambda box: (box[2] - box[0] + 1) * (box[3] - box[1] + 1)  # noqa: E731
    return shared / (area(a) + area(b) - shared)


@wrong("encode_box")
def corner_not_centre(anchor, box):
    height, width = anchor[2] - anchor[0], anchor[3] - anchor[1]
    return (
        (box[0] - anchor[0]) / height,
        (box[1] - anchor[1]) / width,
        np.log((box[2] - box[0]) / height),
        np.log((box[3] - box[1]) / width),
    )


@wrong("encode_box")
def no_logarithm(anchor, box):
    height, width = anchor[2] - anchor[0], anchor[3] - anchor[1]
    return (
        ((box[0] + box[2]) - (anchor[0] + anchor[2])) / 2 / height,
        ((box[1] + box[3]) - (anchor[1] + anchor[3])) / 2 / width,
        (box[2] - box[0]) / height,
        (box[3] - box[1]) / width,
    )


@wrong("encode_box")
def in_pixels(anchor, box):
    height, width = anchor[2] - anchor[0], anchor[3] - anchor[1]
    return (
        ((box[0] + box[2]) - (anchor[0] + anchor[2])) / 2,
        ((box[1] + box[3]) - (anchor[1] + anchor[3])) / 2,
        np.log((box[2] - box[0]) / height),
        np.log((box[3] - box[1]) / width),
    )


def _iou(p, q):
    shared = max(min(p[2], q[2]) - max(p[0], q[0]), 0) * max(min(p[3], q[3]) - max(p[1], q[1]), 0)
    return shared / ((p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - shared)


@wrong("nms")
def not_sorted(boxes, scores, iou_threshold):
    kept = []
    for i in range(len(boxes)):
        if all(_iou(boxes[i], boxes[j]) <= iou_threshold for j in kept):
            kept.append(i)
    return np.array(kept)


@wrong("nms")
def one_round(boxes, scores, iou_threshold):
    order = np.argsort(-scores)
    return np.array(
        [
            i
            for n, i in enumerate(order)
            if all(_iou(boxes[i], boxes[j]) <= iou_threshold for j in order[:n])
        ]
    )


@wrong("nms")
def keeps_the_overlapping(boxes, scores, iou_threshold):
    kept = []
    for i in np.argsort(-scores):
        if all(_iou(boxes[i], boxes[j]) > iou_threshold for j in kept):
            kept.append(i)
    return np.array(kept)


@wrong("bilinear")
def no_half_pixel(grid, y, x):
    y, x = np.clip(y, 0, grid.shape[0] - 1), np.clip(x, 0, grid.shape[1] - 1)
    r, c = min(int(y), grid.shape[0] - 2), min(int(x), grid.shape[1] - 2)
    v, u = y - r, x - c
    return (1 - v) * ((1 - u) * grid[r, c] + u * grid[r, c + 1]) + v * (
        (1 - u) * grid[r + 1, c] + u * grid[r + 1, c + 1]
    )


@wrong("bilinear")
def nearest(grid, y, x):
    return grid[int(y), int(x)]


@wrong("bilinear")
def x_and_y_swapped(grid, y, x):
    x, y = np.clip(y - 0.5, 0, grid.shape[0] - 1), np.clip(x - 0.5, 0, grid.shape[1] - 1)
    r, c = min(int(y), grid.shape[0] - 2), min(int(x), grid.shape[1] - 2)
    v, u = y - r, x - c
    return (1 - v) * ((1 - u) * grid[r, c] + u * grid[r, c + 1]) + v * (
        (1 - u) * grid[r + 1, c] + u * grid[r + 1, c + 1]
    )


@wrong("pyramid_level")
def rounded(height, width):
    return int(np.clip(np.round(4 + np.log2(np.sqrt(height * width) / 224)), 2, 5))


@wrong("pyramid_level")
def not_clipped(height, width):
    return int(np.floor(4 + np.log2(np.sqrt(height * width) / 224)))


@wrong("pyramid_level")
def longest_side(height, width):
    return int(np.clip(np.floor(4 + np.log2(max(height, width) / 224)), 2, 5))


@wrong("paste_mask")
def nearest_cell(probs, box, height, width):
    out = np.zeros((height, width), bool)
    for r in range(height):
        for c in range(width):
            v = (r + 0.5 - box[0]) / (box[2] - box[0]) * probs.shape[0]
            u = (c + 0.5 - box[1]) / (box[3] - box[1]) * probs.shape[1]
            if 0 <= v < probs.shape[0] and 0 <= u < probs.shape[1]:
                out[r, c] = probs[int(v), int(u)] >= 0.5
    return out


@wrong("paste_mask")
def fills_the_box(probs, box, height, width):
    out = np.zeros((height, width), bool)
    out[max(round(box[0]), 0) : round(box[2]), max(round(box[1]), 0) : round(box[3])] = True
    return out


@wrong("paste_mask")
def transposed(probs, box, height, width):
    return nearest_cell(probs.T, box, height, width)


@wrong("smooth_l1")
def always_square(difference):
    return 0.5 * difference**2


@wrong("smooth_l1")
def plain_l1(difference):
    return np.abs(difference)


@wrong("smooth_l1")
def no_absolute_value(difference):
    return np.where(difference < 1, 0.5 * difference**2, difference - 0.5)


@wrong("top_down")
def tiled_not_doubled(coarse, fine, weight, bias):
    return np.tile(coarse, (2, 2, 1)) + fine @ weight + bias


@wrong("top_down")
def bias_forgotten(coarse, fine, weight, bias):
    return coarse.repeat(2, axis=0).repeat(2, axis=1) + fine @ weight


@wrong("top_down")
def the_sum_is_convolved(coarse, fine, weight, bias):
    doubled = coarse.repeat(2, axis=0).repeat(2, axis=1)
    return (doubled[..., :1] + fine) @ weight + bias


@wrong("anchor_labels")
def none_is_forced(iou, positive, negative):
    best = iou.max(axis=1)
    return np.where(best >= positive, 1, np.where(best < negative, 0, -1))


@wrong("anchor_labels")
def only_the_first_of_the_best(iou, positive, negative):
    best = iou.max(axis=1)
    labels = np.where(best >= positive, 1, np.where(best < negative, 0, -1))
    labels[iou.argmax(axis=0)] = 1
    return labels


@wrong("anchor_labels")
def negatives_last(iou, positive, negative):
    labels = np.full(len(iou), -1)
    labels[((iou == iou.max(axis=0)) & (iou > 0)).any(axis=1) | (iou.max(axis=1) >= positive)] = 1
    labels[iou.max(axis=1) < negative] = 0
    return labels
