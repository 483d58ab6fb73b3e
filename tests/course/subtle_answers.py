"""Wrong answers that are right on most inputs: each was accepted by an earlier version of its check."""

import numpy as np

from nucleus_course.course.numbers import sample_bilinear

SUBTLE = {}


def subtle(name):
    def register(function):
        SUBTLE.setdefault(name, []).append(function)
        return function

    return register


@subtle("box_of")
def columns_of_the_first_row(mask):
    rows, columns = np.nonzero(mask)
    first = columns[rows == rows.min()]
    return rows.min(), first.min(), rows.max() + 1, max(first.max(), columns.max()) + 1


@subtle("touching_pairs")
def one_diagonal_too(labels):
    pairs = set()
    for a, b in (
        (labels[:, 1:], labels[:, :-1]),
        (labels[1:], labels[:-1]),
        (labels[1:, :-1], labels[:-1, 1:]),
    ):
        meet = (a != b) & (a > 0) & (b > 0)
        pairs |= {(min(i, j), max(i, j)) for i, j in zip(a[meet].tolist(), b[meet].tolist())}
    return pairs


@subtle("flip_boxes")
def a_fixed_width(boxes, width):
    return np.stack([boxes[:, 0], 10 - boxes[:, 3], boxes[:, 2], 10 - boxes[:, 1]], axis=1)


def _boxes_iou(a, b, height, width):
    shared = height * width
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@subtle("box_iou")
def only_the_height_is_clamped(a, b):
    height = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    return _boxes_iou(a, b, height, min(a[3], b[3]) - max(a[1], b[1]))


@subtle("box_iou")
def only_the_width_is_clamped(a, b):
    width = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return _boxes_iou(a, b, min(a[2], b[2]) - max(a[0], b[0]), width)


@subtle("nms")
def drops_at_the_threshold_too(boxes, scores, iou_threshold):
    from nucleus_course.geometry.boxes import iou_matrix

    iou, kept = iou_matrix(boxes, boxes), []
    for i in np.argsort(-scores):
        if all(iou[i, j] < iou_threshold for j in kept):
            kept.append(int(i))
    return np.array(kept, int)


@subtle("bilinear")
def squares_only(grid, y, x):
    last = grid.shape[0] - 1
    y, x = np.clip(y - 0.5, 0, last), np.clip(x - 0.5, 0, last)
    r, c = int(y), int(x)
    v, u = y - r, x - c
    r2, c2 = min(r + 1, last), min(c + 1, last)
    top = (1 - u) * grid[r, c] + u * grid[r, c2]
    return (1 - v) * top + v * ((1 - u) * grid[r2, c] + u * grid[r2, c2])


@subtle("pyramid_level")
def mean_of_the_sides(height, width):
    return int(np.clip(np.floor(4 + np.log2((height + width) / 2 / 224)), 2, 5))


def _paste(probs, box, height, width, centre=0.5, rows=None, columns=None):
    y1, x1, y2, x2 = box
    r, c = np.arange(height) + 0.5, np.arange(width) + 0.5
    shift = centre - 0.5
    values = sample_bilinear(
        probs,
        (r + shift - y1) / (y2 - y1) * (rows or probs.shape[0]),
        (c + shift - x1) / (x2 - x1) * (columns or probs.shape[1]),
    )
    inside = ((r >= y1) & (r < y2))[:, None] & ((c >= x1) & (c < x2))[None]
    return inside & (values >= 0.5)


@subtle("paste_mask")
def centre_one_pixel_late(probs, box, height, width):
    return _paste(probs, box, height, width, centre=1.0)


@subtle("paste_mask")
def centre_at_the_corner(probs, box, height, width):
    return _paste(probs, box, height, width, centre=0.0)


@subtle("paste_mask")
def one_side_for_both(probs, box, height, width):
    return _paste(probs, box, height, width, columns=probs.shape[0])


@subtle("warmup_cosine")
def the_peak_is_forgotten(step, total, warmup, peak):
    if step <= warmup:
        return peak * step / max(warmup, 1)
    return 0.5 * (1 + np.cos(np.pi * (step - warmup) / (total - warmup)))


@subtle("match")
def first_free_nucleus(iou, threshold):
    taken, out = set(), []
    for row in iou:
        good = [j for j, value in enumerate(row) if value >= threshold and j not in taken]
        out.append(good[0] if good else -1)
        taken.add(out[-1])
    return np.array(out)


@subtle("edge_ids")
def left_column_forgotten(labels):
    border = np.concatenate([labels[0], labels[-1], labels[:, -1]])
    return set(border.tolist()) - {0}


@subtle("measure")
def first_id_taken_for_background(labels, micrometres_per_pixel):
    ids, pixels = np.unique(labels, return_counts=True)
    areas = pixels[1:] * micrometres_per_pixel**2
    return np.stack([ids[1:], areas, np.sqrt(4 * areas / np.pi)], axis=1)


@subtle("classify_detection")
def above_and_not_at_the_limits(ious, taken):
    if (ious[~taken] > 0.5).any() or (ious == 0.5).sum() > 1:
        return "matched"
    if (ious[taken] > 0.5).any():
        return "duplicate"
    return "poor boundary" if (ious > 0.1).any() else "spurious"


@subtle("classify_detection")
def poor_boundaries_on_free_nuclei_only(ious, taken):
    if (ious[~taken] >= 0.5).any():
        return "matched"
    if (ious[taken] >= 0.5).any():
        return "duplicate"
    return "poor boundary" if (ious[~taken] >= 0.1).any() else "spurious"


@subtle("touching_pairs")
def a_list_of_every_contact(labels):
    found = []
    for a, b in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        meet = (a != b) & (a > 0) & (b > 0)
        found += [(min(i, j), max(i, j)) for i, j in zip(a[meet].tolist(), b[meet].tolist())]
    return found


@subtle("edge_ids")
def an_array_of_every_border_pixel(labels):
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return border[border > 0]


@subtle("leaked")
def once_for_each_neighbour(train, validation, group_of):
    return [v for v in validation for t in train if group_of[v] == group_of[t]]


@subtle("label_image")
def ids_in_a_byte(masks, scores):
    out = np.zeros(masks.shape[1:], np.uint8)
    for index in np.argsort(scores, kind="stable"):
        out[masks[index]] = index + 1
    return out


@subtle("match")
def takes_nuclei_off_the_input(iou, threshold):
    partners = []
    for row in iou:
        best = int(row.argmax()) if row.size else -1
        partners.append(best if best >= 0 and row[best] >= threshold else -1)
        if partners[-1] >= 0:
            iou[:, best] = 0
    return np.array(partners)


@subtle("clip_by_global_norm")
def scales_in_place(gradients, limit):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    for gradient in gradients:
        gradient *= min(1.0, limit / max(norm, 1e-12))
    return gradients


@subtle("clip_by_global_norm")
def replaces_in_the_list(gradients, limit):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    for index, gradient in enumerate(gradients):
        gradients[index] = gradient * min(1.0, limit / max(norm, 1e-12))
    return gradients
