"""`nucleus-course thresholds`: the operating point of a model, chosen on validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from nucleus_course.backend import load_backend
from nucleus_course.commands import common
from nucleus_course.errors import UserError


@common.friendly
def thresholds(
    data: common.Data,
    weights: Annotated[str, typer.Option("--weights", metavar="DIR", help="The model or run folder whose thresholds to set.")],
    split: Annotated[str, typer.Option(metavar="S", help="What to choose on; never what you will report on.")] = "validation",
    metric: Annotated[
        str, typer.Option(help="What to make best: dsb_score, f1_50, f1_70, pq, aji, mean_mask_iou or foreground_iou.")
    ] = "dsb_score",
    nms: Annotated[bool, typer.Option("--nms", help="Also try other NMS overlaps; each costs a prediction of the split.")] = False,
    limit: common.Limit = None,
    backend: common.Backend = None,
) -> None:
    """Choose a model's score threshold and smallest area on a split, for a metric that you name.

    \b
    Example
      nucleus-course thresholds --data D.zip --weights runs/compact/weights

    Writes thresholds.json into the model folder, with the metric, split and value reached: from then on
    `predict` and `evaluate` use it. AP is not touched by it.
    """
    load_backend(backend)
    from nucleus_course.evaluation.thresholds import choose_thresholds
    from nucleus_course.model.weights import find_weights
    from nucleus_course.prediction import predict_dataset

    folder = find_weights(weights)
    if folder.is_file():
        raise UserError(f"{weights} is a file: thresholds belong to a model folder, give that")
    dataset = common.open_data(data, split, limit, what="choosing on")
    model = common.open_model(str(folder))
    start = model.thresholds

    def predict(nms_iou, mask):
        return predict_dataset(model, dataset, nms_iou=nms_iou, mask_threshold=mask)

    choice = choose_thresholds(
        dataset, metric=metric, predict=predict, start=start, nms_ious=(0.2, 0.4, 0.5) if nms else (), progress=True
    )
    choice.save(Path(folder))
    best = choice.thresholds
    console = common.out()
    console.print(f"score {best.score:.2f}, smallest area {best.min_area}, NMS IoU {best.nms_iou:.2f}: {metric} {best.value:.1f}")
    console.print(Text(f"written: {folder / 'thresholds.json'} (before: score {start.score:.2f})"), soft_wrap=True)
