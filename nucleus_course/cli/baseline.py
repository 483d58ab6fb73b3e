"""`nucleus-course baseline`: nuclei by methods without learning, for the same table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from nucleus_course._util.errors import UserError
from nucleus_course.cli import common

METHODS = ("otsu",)


@common.friendly
def baseline(
    method: Annotated[str, typer.Argument()],
    data: str,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="S", help=f"Default: validation, and train with --search. {common.SPLIT_HELP}"
        ),
    ] = None,
    out: Path | None = None,
    search: bool = False,
    sigma: Annotated[float | None, typer.Option(min=0.0)] = None,
    depth: Annotated[float | None, typer.Option(min=0.0)] = None,
    min_area: Annotated[int | None, typer.Option(min=1)] = None,
    limit: common.Limit = None,
) -> None:
    """Segment nuclei without learning: something to compare a model with.

    \b
    Example
      nucleus-course baseline otsu --data stage1_train.zip --out otsu.json
      nucleus-course evaluate --data stage1_train.zip --predictions otsu.json

    otsu: one threshold for each image separates bright from dark. The side that the image's border is on is background. A watershed
    on the distance to the background separates nuclei that touch. The contrast of each nucleus is its score. The three
    parameters were chosen on the train split of BBBC038; --search repeats that. The other baseline, a small U-Net, has to be
    trained: `nucleus-course train --preset unet`.

    Writes FILE in the format of `predict`, for `evaluate --predictions`.

    Args:
        method (METHOD): otsu: Otsu's threshold, then a watershed on the distances.
        out (FILE): The file for the predictions. Default: predictions.json.
        search: Choose the parameters on part of the split instead, and print what was tried.
        sigma (PIXELS): Smoothing before the threshold. Default: chosen on train.
        depth (PIXELS): How deep a saddle of the distances separates two nuclei. Default: chosen on train.
        min_area (PIXELS): The smallest nucleus. Default: chosen on train.
    """
    import dataclasses

    from nucleus_course.evaluation.baselines import OtsuConfig, predict_otsu

    if method not in METHODS:
        raise UserError(f"unknown baseline '{method}': choose one of {', '.join(METHODS)}")
    given: dict[str, Any] = {"sigma": sigma, "depth": depth, "min_area": min_area}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if not math.isfinite(value):
            raise UserError(f"--{name} {value}: give a finite number")
    if search and (given or out is not None):
        named = [*given, *(["out"] if out is not None else [])]
        options = ", ".join(f"--{name.replace('_', '-')}" for name in named)
        raise UserError(
            f"--search tries values of sigma, depth and min-area itself and writes no file: leave out {options}"
        )
    out = out or Path("predictions.json")
    if not search:
        common.output_file(out, "predictions.json")
    usual, what = ("train", "choosing on") if search else ("validation", "segmenting")
    dataset = common.open_data(data, split or usual, limit, what=what)
    if search:
        _search(dataset)
        return
    config = dataclasses.replace(OtsuConfig(), **given)
    predictions = predict_otsu(dataset, config)
    predictions.save(out)
    common.out().print(f"{predictions.detections} nuclei in {len(predictions)} images")
    common.written(out)
    common.say(f"next: nucleus-course evaluate --data {data} --predictions {out}")


def _search(dataset) -> None:
    """Print the method's scores with other parameters."""
    from nucleus_course.evaluation.baselines import SEARCH_STEP, search_otsu

    step = SEARCH_STEP if len(dataset) >= 10 * SEARCH_STEP else 1
    title = f"dsb_score on one image in {step}, percent"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, width=80)
    rows = search_otsu(dataset, step=step)
    for name in rows[0]:
        table.add_column("dsb_score" if name == "value" else name, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.2f}" if name == "value" else f"{v:g}" for name, v in row.items()))
    common.out().print(table)
