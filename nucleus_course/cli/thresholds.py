"""`nucleus-course thresholds`: the operating point of a model, chosen on validation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from nucleus_course._util.errors import UserError
from nucleus_course.backend import load_backend
from nucleus_course.cli import common


@common.friendly
def thresholds(
    data: str,
    weights: str,
    split: str = "validation",
    metric: str = "dsb_score",
    at_least: str | None = None,
    nms: bool = False,
    mask: bool = False,
    flips: Annotated[int | None, typer.Option(min=1, max=4)] = None,
    mask_threshold: Annotated[float | None, typer.Option(min=0.05, max=0.95)] = None,
    limit: common.Limit = None,
    annotations: str = "auto",
    reading: common.Reading = None,
    backend: str | None = None,
) -> None:
    """Choose a model's score threshold and smallest area, for the best value of a metric on a split.

    \b
    Examples
      nucleus-course thresholds --data D.zip --weights runs/compact/weights
      nucleus-course thresholds --data D.zip --weights runs/a --nms --flips 4

    Writes thresholds.json into the model folder, with the metric, the split and the value reached. From then on
    `predict` and `evaluate` use it. AP does not depend on it.

    Args:
        weights (DIR): The model or run folder to choose for.
        split (S): The split to choose on; never the one that you will report.
        metric: The metric to maximise: dsb_score, f1_50, f1_70, pq, aji, mean_mask_iou or foreground_iou.
        at_least (METRIC=VALUE): Only operating points that keep another metric this high.
        nms: Also try NMS overlaps of 0.2 to 0.5.
        mask: Also try mask thresholds of 0.3 to 0.6.
        flips: Use and store this number of test-time flips, 1 to 4. Default: as stored.
        mask_threshold: Use and store this mask threshold, chosen elsewhere. Default: as stored.
    """
    from nucleus_course.evaluation.thresholds import check_metrics, choose_thresholds

    floors = _floors(at_least)
    check_metrics(metric, *floors)  # before the prediction, which takes long
    load_backend(backend)
    from nucleus_course.prediction.datasets import predict_dataset, predict_variants

    folder = common.model_folder(weights, "thresholds.json")
    options = {"annotations": annotations, "reading": reading}
    dataset = common.open_data(data, split, limit, what="choosing on", **options)
    model = common.open_model(str(folder))
    given = {"flips": flips, "mask": mask_threshold}
    given = {name: value for name, value in given.items() if value is not None}
    model.thresholds = start = dataclasses.replace(model.thresholds, **given)
    boxes = model.kind == "mask_rcnn"  # a U-Net has no boxes to select from
    if nms and not boxes:
        common.note("--nms: this model has no boxes, so there is no overlap to choose")
    overlaps = (0.2, 0.3, 0.4, 0.5) if nms and boxes else ()
    cuts = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6) if mask else ()
    if boxes:  # the network runs once for all pairs
        known = predict_variants(model, dataset, {start.nms_iou, *overlaps}, {start.mask, *cuts})
    else:
        known = {
            (start.nms_iou, cut): predict_dataset(model, dataset, mask_threshold=cut)
            for cut in {start.mask, *cuts}
        }
    choice = choose_thresholds(
        dataset, metric=metric, at_least=floors, predict=lambda *pair: known[pair], start=start,
        nms_ious=overlaps, masks=cuts, progress=True,
    )  # fmt: skip
    choice.save(Path(folder))
    best = choice.thresholds
    common.out().print(
        f"score {best.score:.2f}, smallest area {best.min_area}, NMS IoU {best.nms_iou:.2f}, mask {best.mask:.2f}, "
        f"flips {best.flips}: {metric} {best.value:.1f}"
    )
    common.say(f"written: {folder / 'thresholds.json'} (before: score {start.score:.2f})")


def _floors(text):
    """ "mean_mask_iou=78" -> {"mean_mask_iou": 78.0}; None -> {}."""
    if text is None:
        return {}
    name, _, value = text.partition("=")
    try:
        floor = float(value)
        if 0 < floor <= 1:
            raise UserError(f"--at-least {text}: values are percent, {name}={100 * floor:g}")
        return {name.strip(): floor}
    except ValueError:
        raise UserError(
            f"--at-least {text}: write METRIC=VALUE, for example mean_mask_iou=78"
        ) from None
