"""Typical wrong answers to the exercises of notebooks 3 to 6; the first half is in wrong_answers.py."""

import numpy as np

WRONG = {}


def wrong(name):
    def register(function):
        WRONG.setdefault(name, []).append(function)
        return function

    return register


# --- notebook 03
@wrong("clip_by_global_norm")
def each_by_itself(gradients, limit):
    return [g * min(1, limit / max(np.linalg.norm(g), 1e-12)) for g in gradients]


@wrong("clip_by_global_norm")
def by_value(gradients, limit):
    return [np.clip(g, -limit, limit) for g in gradients]


@wrong("clip_by_global_norm")
def always_to_the_limit(gradients, limit):
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    return [g * limit / max(norm, 1e-12) for g in gradients]


@wrong("warmup_cosine")
def no_warmup(step, total, warmup, peak):
    return peak * 0.5 * (1 + np.cos(np.pi * step / total))


@wrong("warmup_cosine")
def cosine_over_all_steps(step, total, warmup, peak):
    return (
        peak * step / warmup if step < warmup else peak * 0.5 * (1 + np.cos(np.pi * step / total))
    )


@wrong("warmup_cosine")
def linear_decay(step, total, warmup, peak):
    return peak * step / warmup if step < warmup else peak * (total - step) / (total - warmup)


# --- notebook 04
@wrong("mask_iou")
def dice(a, b):
    total = a.sum() + b.sum()
    return 2 * (a & b).sum() / total if total else 0.0


@wrong("mask_iou")
def no_empty_case(a, b):
    return (a & b).sum() / max((a | b).sum(), 1) if (a | b).any() else 1.0


@wrong("mask_iou")
def over_the_first(a, b):
    return (a & b).sum() / a.sum() if a.any() else 0.0


@wrong("match")
def not_taken_once(iou, threshold):
    return np.array([row.argmax() if row.size and row.max() >= threshold else -1 for row in iou])


@wrong("match")
def best_partner_or_none(iou, threshold):
    taken, out = set(), []
    for row in iou:
        j = int(row.argmax()) if row.size else -1
        good = j >= 0 and row[j] >= threshold and j not in taken
        out.append(j if good else -1)
        taken.add(j)
    return np.array(out)


@wrong("match")
def strictly_above(iou, threshold):
    taken, out = set(), []
    for row in iou:
        free = [j for j in range(len(row)) if j not in taken and row[j] > threshold]
        out.append(max(free, key=lambda j: row[j]) if free else -1)
        taken.add(out[-1])
    return np.array(out)


def _curve(hits, nuclei):
    tp = np.cumsum(hits)
    return tp / nuclei, tp / np.arange(1, len(hits) + 1)


@wrong("average_precision")
def area_under_the_curve(hits, nuclei):
    recall, precision = _curve(hits, nuclei)
    return float(np.sum(np.diff(recall, prepend=0) * precision)) if len(hits) else 0.0


@wrong("average_precision")
def not_interpolated(hits, nuclei):
    recall, precision = _curve(hits, nuclei)
    if not len(hits):
        return 0.0
    return float(
        np.mean(
            [
                precision[np.searchsorted(recall, r)] if r <= recall[-1] else 0.0
                for r in np.linspace(0, 1, 101)
            ]
        )
    )


@wrong("average_precision")
def eleven_points(hits, nuclei):
    recall, precision = _curve(hits, nuclei)
    return float(
        np.mean(
            [
                precision[recall >= r].max() if (recall >= r).any() else 0.0
                for r in np.linspace(0, 1, 11)
            ]
        )
    )


@wrong("label_image")
def last_wins(masks, scores):
    out = np.zeros(masks.shape[1:], int)
    for i, mask in enumerate(masks):
        out[mask] = i + 1
    return out


@wrong("label_image")
def lowest_score_wins(masks, scores):
    out = np.zeros(masks.shape[1:], int)
    for i in np.argsort(-scores):
        out[masks[i]] = i + 1
    return out


@wrong("label_image")
def numbered_by_score(masks, scores):
    out = np.zeros(masks.shape[1:], int)
    order = np.argsort(-scores)
    for rank in range(len(order) - 1, -1, -1):
        out[masks[order[rank]]] = rank + 1
    return out


# --- notebook 05
@wrong("classify_detection")
def ignores_taken(ious, taken):
    best = ious.max() if len(ious) else 0
    return "matched" if best >= 0.5 else "poor boundary" if best >= 0.1 else "spurious"


@wrong("classify_detection")
def best_only(ious, taken):
    if not len(ious) or ious.max() < 0.1:
        return "spurious"
    if ious.max() < 0.5:
        return "poor boundary"
    return "duplicate" if taken[ious.argmax()] else "matched"


@wrong("classify_detection")
def any_taken_overlap_is_a_duplicate(ious, taken):
    free = np.where(taken, 0.0, ious)
    if len(ious) and free.max() >= 0.5:
        return "matched"
    if len(ious) and np.any(ious[taken] > 0.1):
        return "duplicate"
    return "poor boundary" if len(ious) and ious.max() >= 0.1 else "spurious"


@wrong("paired_interval")
def a_minus_b(a, b, draws):
    return tuple(np.percentile((a - b)[draws].mean(axis=1), [2.5, 97.5]))


@wrong("paired_interval")
def ninety_percent(a, b, draws):
    return tuple(np.percentile((b - a)[draws].mean(axis=1), [5, 95]))


@wrong("paired_interval")
def unpaired(a, b, draws):
    return tuple(np.percentile(b[draws].mean(axis=1) - a[draws[::-1]].mean(axis=1), [2.5, 97.5]))


@wrong("edge_ids")
def with_zero(labels):
    return set(
        np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])).tolist()
    )


@wrong("edge_ids")
def top_and_left_only(labels):
    return set(np.unique(np.concatenate([labels[0], labels[:, 0]])).tolist()) - {0}


@wrong("edge_ids")
def inner_frame(labels):
    return set(
        np.unique(
            np.concatenate(
                [
                    labels[:2].ravel(),
                    labels[-2:].ravel(),
                    labels[:, :2].ravel(),
                    labels[:, -2:].ravel(),
                ]
            )
        ).tolist()
    ) - {0}


# --- notebook 06
def _areas(labels):
    ids = np.unique(labels)
    ids = ids[ids > 0]
    return ids, np.array([(labels == i).sum() for i in ids], float)


@wrong("measure")
def scaled_once(labels, micrometres_per_pixel):
    ids, areas = _areas(labels)
    areas = areas * micrometres_per_pixel
    return np.stack([ids, areas, np.sqrt(4 * areas / np.pi)], axis=1)


@wrong("measure")
def background_measured(labels, micrometres_per_pixel):
    ids, counts = np.unique(labels, return_counts=True)
    areas = counts * micrometres_per_pixel**2
    return np.stack([ids, areas, np.sqrt(4 * areas / np.pi)], axis=1)


@wrong("measure")
def radius(labels, micrometres_per_pixel):
    ids, areas = _areas(labels)
    areas = areas * micrometres_per_pixel**2
    return np.stack([ids, areas, np.sqrt(areas / np.pi)], axis=1)


@wrong("density")
def per_square_micrometre(count, height, width, micrometres_per_pixel):
    return count / (height * width * micrometres_per_pixel**2)


@wrong("density")
def pixel_size_once(count, height, width, micrometres_per_pixel):
    return count / (height * width * micrometres_per_pixel) * 1e6


@wrong("density")
def per_pixel(count, height, width, micrometres_per_pixel):
    return count / (height * width)


@wrong("leaked")
def training_ids(train, validation, group_of):
    return {t for t in train if any(group_of[v] == group_of[t] for v in validation)}


@wrong("leaked")
def neighbours_within_validation(train, validation, group_of):
    ids = [*train, *validation]
    return {v for v in validation if any(group_of[v] == group_of[i] for i in ids if i != v)}


@wrong("leaked")
def groups_not_ids(train, validation, group_of):
    return {group_of[v] for v in validation} & {group_of[t] for t in train}


@wrong("leaked")
def group_zero_forgotten(train, validation, group_of):
    groups = {group_of[t] for t in train if group_of[t]}
    return {v for v in validation if group_of[v] in groups}


@wrong("mean_over_sources")
def each_image_once(scores, source_of):
    return sum(scores.values()) / len(scores)


@wrong("mean_over_sources")
def sources_without_images_too(scores, source_of):
    names = set(source_of.values())
    own = [[v for i, v in scores.items() if source_of[i] == name] for name in names]
    return sum(sum(values) / max(1, len(values)) for values in own) / len(own)


@wrong("mean_over_sources")
def best_image_of_each(scores, source_of):
    names = {source_of[i] for i in scores}
    return sum(max(v for i, v in scores.items() if source_of[i] == n) for n in names) / len(names)


@wrong("mean_over_sources")
def zeros_left_out(scores, source_of):
    scores = {i: v for i, v in scores.items() if v}
    names = {source_of[i] for i in scores}
    own = [[v for i, v in scores.items() if source_of[i] == name] for name in names]
    return sum(sum(values) / len(values) for values in own) / len(own)
