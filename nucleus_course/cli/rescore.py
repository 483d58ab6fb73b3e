"""`nucleus-course rescore`: scores that predict how well a detection outlines its nucleus."""

from __future__ import annotations

from nucleus_course._util.errors import UserError
from nucleus_course.backend import load_backend
from nucleus_course.cli import common

OPTIMISM = 0.05  # scores exceed the IoU by more than this if the model has memorised the images


@common.friendly
def rescore(
    data: str,
    weights: str,
    split: str = "train",
    check: str = "validation",
    seed: int = 0,
    limit: common.Limit = None,
    backend: str | None = None,
) -> None:
    """Make a model's scores predict the IoU of its detections.

    \b
    Example
      nucleus-course rescore --data D.zip --weights runs/compact/weights
      nucleus-course thresholds --data D.zip --weights runs/compact/weights

    Predicts the split, matches detections with nuclei, and fits five small networks that predict a detection's IoU
    from its class probability, mask, size and neighbours. Writes rescoring.json into the model folder; from then
    on its scores are expected IoUs. Choose the score threshold again afterwards. To undo this, delete the file;
    training deletes it too.

    Args:
        weights (DIR): The model or run folder to fit scores for.
        split (S): The split to fit to: the training images, unless the model has memorised them.
        check (S): The split to show the change of AP on; none skips this.
        seed: Seed of the fit.
    """
    load_backend(backend)
    from nucleus_course.evaluation.rescoring import (
        average_precision,
        fit_rescorer,
        match_detections,
        mean_score_and_iou,
    )
    from nucleus_course.prediction.rescorer import FILE

    folder = common.model_folder(weights, FILE)
    dataset = common.open_data(data, split, limit, what="fitting to")
    judged = None if check == "none" else common.open_data(data, check, limit, what="checking on")
    model = common.open_model(str(folder))
    if model.kind != "mask_rcnn":
        raise UserError(
            f"{weights} is a {model.config.name}: only the scores of a Mask R-CNN can be fitted"
        )
    seen = match_detections(model, dataset)
    info = {
        "split": dataset.split, "dataset": dataset.name, "images": len(dataset),
        "flips": model.thresholds.flips, "detections": sum(len(s.scores) for s in seen), "seed": seed,
    }  # fmt: skip
    rescorer = fit_rescorer(seen, seed=seed, info=info)
    rescorer.save(folder)  # before the check, which takes a while
    console = common.out()
    common.written(folder / FILE)
    if judged is not None:
        seen = match_detections(model, judged)
        before, after = average_precision(seen), average_precision(seen, rescorer)
        console.print(
            f"coco_ap on {check}: {before:.2f} with the network's own scores, {after:.2f} with expected IoUs"
        )
        predicted, actual = mean_score_and_iou(seen, rescorer)
        means = f"mean score {predicted:.2f}, mean IoU {actual:.2f}"
        console.print(f"detections with a score of at least 0.5 there: {means}")
        if predicted > actual + OPTIMISM:
            common.note(
                f"the model has memorised the images of {split}, so the new scores are too high on other images: choose another --split"
            )
    common.say(
        f"next: nucleus-course thresholds --data {data} --weights {weights} (the old score threshold no longer fits)"
    )
