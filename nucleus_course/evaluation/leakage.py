"""Near-duplicates across splits: is the model good, or has it seen these images?

BBBC038 holds many crops of the same fields of view, and the protocol's split, made by image, puts some on
both sides. The data room finds the groups (``dataset.groups`` of the whole data set: {image id: group}).
"""

from nucleus_course._util.errors import UserError
from nucleus_course.evaluation.bootstrap import values_of
from nucleus_course.evaluation.report import plain_values


def seen_in_training(ids, training_ids, groups):
    """Those of ``ids`` whose group also holds a training image, in order.

    Raises:
        UserError: if an id has no group.
    """
    try:
        training = {groups[i] for i in training_ids}
        return tuple(i for i in ids if groups[i] in training)
    except KeyError as error:
        raise UserError(f"image {error} has no group: take those of the whole data set") from None


def seen_and_unseen(report, training_ids, groups):
    """Metrics apart for images that have a near-duplicate in the training split and images that have none.

    Args:
        report: a :class:`~nucleus_course.evaluation.report.Report` fresh from ``evaluate``.
        training_ids: what the model was trained on.
        groups: {image id: group} of all images of both.

    Returns:
        dict: ``seen`` and ``unseen``, each {"images": ids, "metrics": {key: percent} or None for no images}.
    """
    if report.scores is None:
        raise UserError(
            "a report loaded from a file holds no matches: evaluate its predictions again"
        )
    seen = set(seen_in_training([s.image_id for s in report.scores], training_ids, groups))
    parts = {}
    for name, wanted in (("seen", True), ("unseen", False)):
        part = [s for s in report.scores if (s.image_id in seen) == wanted]
        parts[name] = {
            "images": [s.image_id for s in part],
            "metrics": plain_values(values_of(part)) if part else None,
        }
    return parts
