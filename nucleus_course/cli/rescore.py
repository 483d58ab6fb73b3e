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
    fold: list[str] | None = None,
    check: str = "validation",
    seed: common.Seed = 0,
    limit: common.Limit = None,
    backend: str | None = None,
) -> None:
    """Make a model's scores predict the IoU of its detections.

    \b
    Example
      nucleus-course rescore --data D.zip --weights runs/compact/weights
      nucleus-course thresholds --data D.zip --weights runs/compact/weights
      nucleus-course rescore --data D.zip --weights runs/compact/weights
          --fold runs/1=source-1-validation --fold runs/2=source-2-validation

    Predicts the split, matches detections with nuclei, and fits five small networks that predict a detection's IoU
    from its class probability, mask, size and neighbours. Writes rescoring.json into the model folder; from then
    on its scores are expected IoUs. Choose the score threshold again afterwards. To undo this, delete the file;
    training deletes it too.

    A model is surer of images that it has learned from than of others. If models of the same kind were trained with
    some images held out, --fold fits to what those models find on the images that they have not seen.

    Args:
        weights (DIR): The model or run folder to fit scores for.
        split (S): The split to fit to: the training images, unless the model has memorised them.
        fold (RUN=SPLIT): Instead of --split, fit to this model's detections on this split; may be repeated.
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

    if fold and split != "train":
        raise UserError(
            f"--split {split} and --fold exclude each other: each --fold names its split"
        )
    folder = common.model_folder(weights, FILE)
    pairs = [_pair(given) for given in fold or ()] or [(str(folder), split)]
    datasets = [common.open_data(data, part, limit, what="fitting to") for _, part in pairs]
    judged = None if check == "none" else common.open_data(data, check, limit, what="checking on")
    model = _mask_rcnn(str(folder), weights)
    seen = []
    for (run, _), dataset in zip(pairs, datasets):
        fitted = model if run == str(folder) else _mask_rcnn(run, run)
        fitted.thresholds = model.thresholds  # the same flips, NMS and mask threshold
        seen += match_detections(fitted, dataset)
    info = {
        "split": ", ".join(part for _, part in pairs), "dataset": datasets[0].name,
        "images": sum(map(len, datasets)), "flips": model.thresholds.flips,
        "detections": sum(len(s.scores) for s in seen), "seed": seed, "held_out": bool(fold),
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
                f"the new scores are too high on {check}: the model knows the images of {info['split']} better; fit to others, with --split or --fold"
            )
    common.say(
        f"next: nucleus-course thresholds --data {data} --weights {weights} (the old score threshold no longer fits)"
    )


def _pair(given: str) -> tuple[str, str]:
    """ "RUN=SPLIT" as its two parts."""
    run, equals, split = given.rpartition("=")
    if not (run and equals and split):
        raise UserError(
            f"--fold {given!r}: RUN=SPLIT is expected, as in runs/fold1=source-1-validation"
        )
    return run, split


def _mask_rcnn(weights: str, name: str):
    """The Mask R-CNN behind ``weights``; ``name`` is what the user called it."""
    model = common.open_model(weights)
    if model.kind != "mask_rcnn":
        raise UserError(
            f"{name} is a {model.config.name}: only the scores of a Mask R-CNN can be fitted"
        )
    return model
