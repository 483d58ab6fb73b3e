"""`nucleus-course evaluate`: the protocol's table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from nucleus_course._util.errors import UserError
from nucleus_course.backend import load_backend
from nucleus_course.cli import common


@common.friendly
def evaluate(
    data: common.Data,
    split: Annotated[
        str, typer.Option(metavar="S", help=f"What to score on: {common.SPLIT_HELP}")
    ] = "validation",
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="W",
            help="Predict with these: a name that ships, a model folder or a file.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="FILE",
            help="Score these: a predictions.json, or a folder of label images.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The report to write.")] = Path(
        "report.json"
    ),
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="The operating point; default: the one stored with the predictions.",
        ),
    ] = None,
    min_area: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=0,
            help="Leave out detections smaller than this at the operating point.",
        ),
    ] = None,
    bootstrap: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Samples for 95% intervals over images; 1000 is usual, 0 gives none.",
        ),
    ] = 0,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="OTHER",
            help="Also compare with another model: weights, a predictions.json or a folder.",
        ),
    ] = None,
    by_type: Annotated[
        bool, typer.Option("--types", help="Also print the metrics of each image type.")
    ] = False,
    errors: Annotated[
        bool,
        typer.Option(
            "--errors",
            help="Also sort every detection and nucleus into one class of error, with what it costs.",
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Also write a page with figures that opens by itself."
        ),
    ] = None,
    sources: Annotated[
        bool,
        typer.Option(
            "--sources",
            help="Also print a table by source (stage1_train's experiments), each counted once in the mean.",
        ),
    ] = False,
    learned: Annotated[
        str,
        typer.Option(
            "--learned",
            metavar="S",
            help="The split that the weights learned from: --sources marks what they never met.",
        ),
    ] = "train",
    flips: common.Flips = None,
    limit: common.Limit = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop at the first faulty image instead of leaving it out."),
    ] = False,
    allow_empty: common.AllowEmpty = False,
    preset: common.BarePreset = None,
    dtype: common.PredictionDtype = None,
    backend: common.Backend = None,
) -> None:
    """Score a model, or anybody's predictions, with every metric of the protocol.

    \b
    Examples
      nucleus-course evaluate --data D.zip --weights compact --bootstrap 1000
      nucleus-course evaluate --data D.zip --predictions labels/ --against compact

    The table has COCO's AP (maxDets 1000, and 100 for comparison), the mean IoU of masks in two readings,
    the Data Science Bowl's score, Matterport's AP, F1, PQ and AJI, in percent. AP uses every detection
    and its score; the others one operating point. docs/metrics.md defines each.

    \b
    Writes
      report.json              metrics over all, for each image, for each type
      report.predictions.json  the detections, with --weights
      report.against.json      the paired comparison, with --against
      report.errors.json       the error analysis, with --errors
      report.sources.json      the table by source, with --sources
    all called after --out FILE.
    """
    if (weights is None) == (predictions is None):
        raise UserError("give either --weights or --predictions: one of them is what is scored")
    common.check_dtype(dtype)
    _writable(out)
    if weights is not None:
        _find(weights)
    if against is not None and not _are_predictions(against):
        _find(against)
    met = _met(learned) if sources else ()
    dataset = common.open_data(data, split, limit, strict, "scoring on", allow_empty)
    scored = _predictions(
        dataset, weights or str(predictions), backend, preset, weights is not None, dtype, flips
    )
    if weights is not None:
        scored.save(out.with_suffix(".predictions.json"))

    from nucleus_course.evaluation import evaluate as score

    report = score(
        dataset,
        scored,
        score_threshold=score_threshold,
        min_area=min_area,
        bootstrap=bootstrap,
        seed=seed,
    )
    report.save(out)
    console = common.out()
    console.print(report.table())
    if by_type:
        console.print(report.types_table())
    written = [out] + ([out.with_suffix(".predictions.json")] if weights is not None else [])
    other, analysis = None, None
    if against is not None:
        other = _against(
            console,
            dataset,
            report,
            against,
            backend,
            preset,
            dtype,
            bootstrap or 1000,
            seed,
            out,
            flips,
        )
        written.append(out.with_suffix(".against.json"))
    if sources:
        _sources(console, report, other, met, bootstrap or 1000, seed, out)
        written.append(out.with_suffix(".sources.json"))
    if errors:
        analysis = _errors(console, dataset, scored, report, out)
        written.append(out.with_suffix(".errors.json"))
    if html is not None:
        from nucleus_course.reports.html import write_html

        others = {other.name: other} if other is not None else None
        write_html(html, dataset, scored, report, analysis=analysis, others=others)
        written.append(html)
    console.print(Text("written: " + ", ".join(map(str, written))), soft_wrap=True)


def _writable(path: Path) -> None:
    if path.is_dir():
        raise UserError(
            f"--out {path} is a folder: name a file in it, such as {path / 'report.json'}"
        )


def _find(weights: str) -> None:
    """Complain about weights that are not there before the data are read."""
    from nucleus_course.models.weights.folder import find_weights

    find_weights(weights)


def _are_predictions(other: str) -> bool:
    """Whether ``other`` names predictions, a file or a folder of label images, and not weights."""
    path = Path(other)
    if path.suffix == ".json" and not path.is_file():
        raise UserError(f"--against {other}: no such file")
    return path.suffix == ".json" or (
        path.is_dir() and not any((p / "config.json").exists() for p in (path, path / "weights"))
    )


def _predictions(
    dataset,
    source: str,
    backend,
    preset,
    is_weights: bool,
    dtype: str | None = None,
    flips: int | None = None,
):
    """Predictions from weights (run now) or from a file or folder."""
    from nucleus_course.prediction.interchange import Predictions

    if not is_weights:
        return Predictions.load(source)
    load_backend(backend)
    from nucleus_course.prediction.datasets import predict_dataset

    model = common.open_model(source, preset, dtype)
    predictions = predict_dataset(model, dataset, flips=flips)
    predictions.info.update(
        model=source, preset=model.config.name, min_area=model.thresholds.min_area
    )
    return predictions


def _against(
    console,
    dataset,
    report,
    other: str,
    backend,
    preset,
    dtype,
    samples: int,
    seed: int,
    out: Path,
    flips=None,
):
    """Print and write the paired comparison; gives the other model's report."""
    from nucleus_course.evaluation import compare
    from nucleus_course.evaluation import evaluate as score

    second = _predictions(dataset, other, backend, preset, not _are_predictions(other), None, flips)
    base = score(dataset, second)  # "A against B": B is the base that the difference is taken from
    comparison = compare(dataset, base, report, replicates=samples, seed=seed)
    console.print(comparison.table())
    comparison.save(out.with_suffix(".against.json"))
    return base


def _met(learned: str):
    from nucleus_course.data.splits import met_sources

    return met_sources(learned)


def _sources(console, report, other, met, samples: int, seed: int, out: Path):
    """Print and write the table by source; the paired one where there is another model's report."""
    from nucleus_course.data.sources import read_sources
    from nucleus_course.evaluation.by_source import by_source

    table = by_source(report, read_sources(), met, other=other, replicates=samples, seed=seed)
    console.print(table.table())
    table.save(out.with_suffix(".sources.json"))


def _errors(console, dataset, predictions, report, out: Path):
    from nucleus_course.evaluation.errors.analysis import analyse_errors

    point = report.operating_point
    analysis = analyse_errors(
        dataset, predictions, score_threshold=point["score_threshold"], min_area=point["min_area"]
    )
    console.print(analysis.table())
    analysis.save(out.with_suffix(".errors.json"))
    return analysis
