"""`nucleus-course rescore`: scores that say how well a nucleus is outlined."""

from __future__ import annotations

from nucleus_course._util.errors import UserError
from nucleus_course.backend import load_backend
from nucleus_course.cli import common

OPTIMISM = 0.05  # scores this much above the IoU they stand for are a fit to images known by heart


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
    """Fit a model's scores to the IoU that its detections turn out to have.

    \b
    Example
      nucleus-course rescore --data D.zip --weights runs/compact/weights
      nucleus-course thresholds --data D.zip --weights runs/compact/weights

    Predicts the split, matches detections with nuclei, and fits five small networks that tell a detection's IoU
    from its class probability, mask, size and neighbours. Writes rescoring.json into the model folder: from then
    on its scores are expected IoUs. Choose the threshold anew after that. Training drops the file; so may you.

    Args:
        weights (DIR): The model or run folder to fit scores for.
        split (S): What to fit to: what the model learned from, unless it knows that by heart.
        check (S): Where to show what it does to AP; none skips it.
        seed: Seed of the fit.
    """
    load_backend(backend)
    from nucleus_course.evaluation.rescoring import (
        average_precision,
        fit_rescorer,
        match_detections,
        mean_score_and_iou,
    )
    from nucleus_course.models.weights.folder import find_weights
    from nucleus_course.prediction.rescorer import FILE

    folder = find_weights(weights)
    if folder.is_file():
        raise UserError(f"{weights} is a file: scores are fitted for a model folder, give that")
    dataset = common.open_data(data, split, limit, what="fitting to")
    judged = None if check == "none" else common.open_data(data, check, limit, what="checking on")
    model = common.open_model(str(folder))
    if model.kind != "mask_rcnn":
        raise UserError(
            f"{weights} is a {model.config.name}: only Mask R-CNN's detections have scores to fit"
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
            f"coco_ap on {check}: {before:.2f} by the network's own scores, {after:.2f} by expected IoU"
        )
        predicted, actual = mean_score_and_iou(seen, rescorer)
        means = f"mean score {predicted:.2f}, mean IoU {actual:.2f}"
        console.print(f"detections of 0.5 or more there: {means}")
        if predicted > actual + OPTIMISM:
            common.note(
                f"the model knows the images of {split} too well for its scores to hold elsewhere: fit with --split to others"
            )
    common.say(
        f"next: nucleus-course thresholds --data {data} --weights {weights} (the old score threshold means something else now)"
    )
