"""`nucleus-course novelty`: describes a model's training images, to flag images that are unlike them."""

from __future__ import annotations

from nucleus_course._util.errors import UserError
from nucleus_course.cli import common


@common.friendly
def novelty(data: str, weights: str, split: str = "train", check: str = "validation") -> None:
    """Describe the images a model was trained on, so that it can flag images that are unlike them.

    \b
    Example
      nucleus-course novelty --data D.zip --weights runs/compact/weights

    Uses the images only; no network runs. Each source of stage1_train is compared with the others, and the limit is set so
    that 99 of 100 of these unfamiliar images stay below 1. Writes novelty.json into the model folder. From then on `predict`
    writes a column novelty and names the images at 1 or more. Only for models with the canonical input.

    Args:
        weights (DIR): The model or run folder to write novelty.json into.
        split (S): The split that the model was trained on.
        check (S): A split to report how many images are flagged; none skips this.
    """
    from nucleus_course.data.canonical import canonical
    from nucleus_course.data.novelty import FILE, Novelty
    from nucleus_course.data.sources import read_sources
    from nucleus_course.models.weights.folder import read_config

    folder = common.model_folder(weights, FILE)
    if read_config(folder)[0].input != "canonical":
        raise UserError(f"{weights} sees colour: novelty is for models whose input is canonical")
    dataset = common.open_data(data, split, what="describing")
    sources = read_sources()
    if not set(dataset.ids) <= set(sources):
        raise UserError(
            f"{data}: not all of its images are in stage1_train: sources are known only for those"
        )
    judged = None if check == "none" else common.open_data(data, check, what="checking on")
    fitted = Novelty.fit(dataset, sources)
    fitted.save(folder)
    console = common.out()
    common.written(folder / FILE)
    if judged is not None:
        flagged = [fitted(canonical(record.raw).image) for record in judged]
        console.print(
            f"{sum(t >= 1 for t in flagged)} of {len(flagged)} images of {check} are flagged; the largest novelty is {max(flagged):.2f}"
        )
