"""`nucleus-course evaluate`: the protocol's table."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from nucleus_course._util.errors import UserError
from nucleus_course.backend import load_backend
from nucleus_course.cli import common
from nucleus_course.prediction.scale import check_diameter


@common.friendly
def evaluate(
    data: str,
    split: Annotated[
        str, typer.Option(metavar="S", help=f"What to score on: {common.SPLIT_HELP}")
    ] = "validation",
    weights: str | None = None,
    predictions: Path | None = None,
    out: Path = Path("report.json"),
    score_threshold: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    min_area: Annotated[int | None, typer.Option(min=0)] = None,
    bootstrap: Annotated[int, typer.Option(min=0)] = 0,
    against: str | None = None,
    by_type: Annotated[bool, typer.Option("--types")] = False,
    errors: bool = False,
    html: Path | None = None,
    sources: bool = False,
    learned: str = "train",
    flips: common.Flips = None,
    rescale: float = 1.0,
    diameter: str = "auto",
    limit: common.Limit = None,
    seed: common.Seed = 0,
    strict: bool = False,
    allow_empty: bool = False,
    annotations: str = "auto",
    reading: common.Reading = None,
    preset: str | None = None,
    dtype: str | None = None,
    backend: str | None = None,
) -> None:
    """Score a model, or any predictions, with every metric of the protocol.

    \b
    Examples
      nucleus-course evaluate --data D.zip --weights compact --bootstrap 1000
      nucleus-course evaluate --data D.zip --predictions labels/ --against compact
      nucleus-course evaluate --data D.zip --weights compact --rescale 0.25

    The table has COCO's AP (maxDets 1000, and 100 for comparison), the mean mask IoU in two definitions,
    the Data Science Bowl's score, Matterport's AP, F1, PQ and AJI, in percent. AP uses every detection
    and its score; the others use one operating point. docs/metrics.md defines each.

    \b
    Writes
      report.json              metrics over all, for each image, for each type
      report.predictions.json  the detections, with --weights
      report.against.json      the paired comparison, with --against
      report.errors.json       the error analysis, with --errors
      report.sources.json      the table by source, with --sources
    All names follow --out FILE.

    Args:
        weights (W): Predict with these weights: a shipped name, a model folder or a file.
        predictions (FILE): Score these: a predictions.json, or a folder of label images.
        out (FILE): The report to write.
        score_threshold: The operating point, also of OTHER. Default: the one stored with the predictions.
        min_area (PIXELS): Leave out detections smaller than this at the operating point, also of OTHER.
        bootstrap (N): Bootstrap samples for 95% intervals over images; 1000 is usual, 0 turns them off.
        against (OTHER): Also compare with another model: weights, a predictions.json or a folder.
        by_type: Also print the metrics of each image type.
        errors: Also assign every detection and nucleus to one class of error, and say what each class costs.
        html (FILE): Also write a page with figures, in one self-contained file.
        sources: Also print a table by source (the experiments of stage1_train), each counted once in the mean.
        learned (S): The split that the weights were trained on: --sources marks the sources they have never seen.
        rescale (F): Score on images and nuclei made F times as large, to see how far from the usual
            magnification the model works.
        diameter (PX|auto|none): With --weights: the scale, as for predict.
        seed: Seed of the bootstrap.
    """
    from nucleus_course.data.splits import met_sources
    from nucleus_course.models.weights.folder import find_weights

    if (weights is None) == (predictions is None):
        raise UserError("give either --weights or --predictions: the one to score")
    common.check_dtype(dtype)
    common.output_file(out, "report.json")
    given = Path(against) if against is not None and _are_predictions(against) else None
    if weights is None and (against is None or given is not None):
        _refuse_idle(flips=flips, diameter=diameter, preset=preset, dtype=dtype, backend=backend)
    if learned != "train" and not sources:
        raise UserError("--learned says which sources --sources marks: give both")
    endings = {".predictions.json": weights, ".against.json": against, ".errors.json": errors}
    endings[".sources.json"] = sources
    kept = [out.with_suffix(ending) for ending, wanted in endings.items() if wanted]
    _refuse_overwriting([out, *kept, html], predictions, given)
    for name in (weights, against):
        if name is not None and not (name == against and _are_predictions(name)):
            find_weights(name)  # before the data, whose reading may take long
    met = met_sources(learned) if sources else ()
    how = allow_empty, annotations, reading
    dataset = common.open_data(data, split, limit, strict, "scoring on", *how)
    if rescale != 1.0:
        from nucleus_course.data.rescaled import Rescaled

        dataset = Rescaled(dataset, rescale)
    options = {"flips": flips, "diameter": check_diameter(diameter)}
    point = {"score_threshold": score_threshold, "min_area": min_area}
    run = _Run(dataset, out, backend, preset, options, bootstrap or 1000, seed, rescale, point)
    scored = run.predict(weights, dtype) if weights else _load(predictions)
    if weights is not None:
        run.keep(".predictions.json", scored)
    report = run.score(scored, bootstrap=bootstrap, seed=seed)
    report.save(out)
    console = common.out()
    console.print(report.table())
    if by_type:
        console.print(report.types_table())
    other = run.compare(report, against) if against is not None else None
    if sources:
        run.by_source(report, other, met)
    analysis = run.errors(scored, report) if errors else None
    written = [out, *run.written]
    if html is not None:
        from nucleus_course.reports.html import write_html

        others = {other.name: other} if other is not None else None
        write_html(html, dataset, scored, report, analysis=analysis, others=others)
        written.append(html)
    common.written(*written)


def _refuse_idle(**options) -> None:
    """Options of a prediction do nothing where all predictions are given."""
    for name, value in options.items():
        if value not in (None, "auto"):
            raise UserError(f"--{name} needs --weights: with --predictions nothing is predicted")


def _refuse_overwriting(outputs, *inputs) -> None:
    """No result may replace what the command reads, or another result."""
    seen: dict[Path, str] = {p.resolve(): "is read" for p in inputs if p is not None}
    for path in outputs:
        if path is not None:
            what = seen.get(path.resolve())
            if what is not None:
                raise UserError(f"{path} {what}: it would be overwritten; choose another --out")
            seen[path.resolve()] = "is written twice"


def short_name(weights: str) -> str:
    """A name of the weights for tables: the folder's last name, ``first`` for ``runs/first/weights``."""
    parts = [part for part in Path(weights).parts if part not in ("weights", "/", ".", "..")]
    return parts[-1] if parts else weights


def _load(path):
    from nucleus_course.prediction.interchange import Predictions

    return Predictions.load(path)


def _are_predictions(other: str) -> bool:
    """Whether ``other`` names predictions (a file or a folder of label images) and not weights."""
    path = Path(other)
    if path.suffix == ".json":
        if not path.is_file():
            raise UserError(f"--against {other}: no such file")
        return True
    return path.is_dir() and not any((p / "config.json").exists() for p in (path, path / "weights"))


@dataclass
class _Run:
    """The common data of one evaluation's parts, each of which writes a file named after ``out``."""

    dataset: Any
    out: Path
    backend: str | None
    preset: str | None
    options: dict[str, Any]
    samples: int
    seed: int
    rescale: float
    point: dict[str, Any]
    written: list[Path] = field(default_factory=list)

    def keep(self, ending: str, result, show: bool = False) -> None:
        """Write a result beside the report, and print its table."""
        if show:
            common.out().print(result.table())
        self.written.append(self.out.with_suffix(ending))
        result.save(self.written[-1])

    def predict(self, weights: str, dtype: str | None = None):
        """Compute the predictions of weights."""
        load_backend(self.backend)
        from nucleus_course.prediction.datasets import predict_dataset

        model = common.open_model(weights, self.preset, dtype)
        predictions = predict_dataset(model, self.dataset, **self.options)
        if resized := predictions.info["resized"]:
            common.note(
                f"{resized} of {len(self.dataset)} images resized, because the network knows another size of nuclei best; "
                "--diameter none turns this off"
            )
        about = {"preset": model.config.name, "min_area": model.thresholds.min_area}
        predictions.info.update(model=short_name(weights), **about)
        return predictions

    def score(self, predictions, **options):
        """The report of predictions at the given operating point, or at the one stored with them."""
        from nucleus_course.evaluation import evaluate as score

        point = dict(self.point)
        if (
            self.rescale != 1.0 and point["min_area"] is None
        ):  # the stored one: of the original size
            point["min_area"] = round(predictions.info.get("min_area", 0) * self.rescale**2)
        return score(self.dataset, predictions, **point, **options)

    def compare(self, report, against: str):
        """The paired comparison with another model; returns its report."""
        from nucleus_course.evaluation import compare

        given = _are_predictions(against)
        second = _load(against) if given else self.predict(against)
        base = self.score(second)  # "A against B": the difference is taken from B
        compared = compare(self.dataset, base, report, replicates=self.samples, seed=self.seed)
        self.keep(".against.json", compared, show=True)
        return base

    def by_source(self, report, other, met) -> None:
        """The table by source; paired if there is another model's report."""
        from nucleus_course.data.sources import read_sources
        from nucleus_course.evaluation.by_source import by_source

        options = {"other": other, "replicates": self.samples, "seed": self.seed}
        self.keep(".sources.json", by_source(report, read_sources(), met, **options), show=True)

    def errors(self, predictions, report):
        """The error analysis at the report's operating point."""
        from nucleus_course.evaluation.errors.analysis import analyse_errors

        point = {key: report.operating_point[key] for key in ("score_threshold", "min_area")}
        analysis = analyse_errors(self.dataset, predictions, **point)
        self.keep(".errors.json", analysis, show=True)
        return analysis
