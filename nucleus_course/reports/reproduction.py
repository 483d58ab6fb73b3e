"""The paper's table and its side experiments, from run folders.

A run folder is named after its preset and holds ``config.json`` (the settings), ``log.jsonl`` (the
progress) and ``report.json`` (the scores on the validation split).
"""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import read_json
from nucleus_course.models.weights.folder import shipped_weights
from nucleus_course.presets import get_preset

# Johnson (2018), table 1: COCO AP and "mask average IoU", percent, by preset.
PUBLISHED = {"paper-resnet50": (56.06, 66.98), "paper-resnet101": (59.40, 70.54)}
METRICS = {"coco_ap": "AP", "coco_ap50": "AP50", "mean_mask_iou": "mask IoU", "dsb_score": "DSB"}
EXPERIMENTS = ("mirror", "native", "long", "short", "high-rate", "low-rate", "no-drop", "cosine")
# Table -> {preset: weights to start from}.
TABLES: dict[str, dict[str, str | None]] = {
    "table1": {
        "paper-resnet50": "coco",
        "paper-resnet101": "coco",
        "paper-resnet50-scratch": None,
        "paper-resnet101-scratch": None,
        "strong": None,
        "compact": None,
    },
    "experiments": {"paper-resnet50": "coco"}
    | {f"paper-resnet50+{name}": "coco" for name in EXPERIMENTS},
    "experiments-scratch": {"paper-resnet50-scratch": None}
    | {f"paper-resnet50-scratch+{name}": None for name in EXPERIMENTS},
}
TITLES = {
    "table1": "Table 1: two backbones",
    "experiments": "Side experiments, from COCO weights",
    "experiments-scratch": "Side experiments, from random weights",
}


@dataclass
class Row:
    """One run of a table.

    Attributes:
        preset: its name; folder: the run folder, which may not exist yet.
        start: ``coco``, ``imagenet``, … or None for random weights; that of the run, else as planned.
        epochs: (done, planned); (0, n) if nothing was run; finished: whether the schedule is over.
        asked: options for the length it was started with, if that is not the preset's.
        metrics, images: of its report, {} and 0 without one.
        warnings: why the numbers may not be comparable.
    """

    preset: str
    folder: Path
    start: str | None
    epochs: tuple = (0, 0)
    finished: bool = False
    metrics: dict = field(default_factory=dict)
    images: int = 0
    log: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    warnings: list = field(default_factory=list)

    @property
    def label(self):
        """The preset's name, or only the variant, because the base is in the row above."""
        return "+" + self.preset.split("+", 1)[1] if "+" in self.preset else self.preset

    @property
    def state(self):
        """``not run``, ``37 of 100`` epochs, ``not scored``, or the epochs."""
        done, planned = self.epochs
        if not done:
            return "scored" if self.metrics else "not run"
        if not self.finished:
            return f"{done} of {planned}"
        return str(done) if self.metrics else "not scored"


def collect(table, runs):
    """The rows of a table from the folder ``runs``, whether run or not.

    Raises:
        UserError: no such table, or a file in a run folder is damaged.
    """
    if table not in TABLES:
        raise UserError(f"unknown table '{table}': choose one of {', '.join(TABLES)}")
    return [_row(preset, Path(runs) / preset, start) for preset, start in TABLES[table].items()]


def _row(preset, folder, start):
    usual = sum(stage.epochs for stage in get_preset(preset).training.stages)
    row = Row(preset, folder, start, epochs=(0, usual))
    config, shipped = _read(folder / "config.json"), shipped_weights().get(preset)
    minutes = (config or {}).get("minutes")
    if config is None and shipped and (shipped / "report.json").is_file():
        row.folder = folder = shipped  # trained and scored already
    elif config:
        row.start = config.get("start")
        row.epochs = (0, sum(stage["epochs"] for stage in config.get("stages", ())) or usual)
        if minutes:
            row.asked = ["--minutes", f"{minutes:g}"]
        elif row.epochs[1] != usual:
            row.asked = ["--epochs", str(row.epochs[1])]
        if row.start != start:
            names = (row.start or "random weights", start or "random weights")
            row.warnings.append("started from {}, not {}".format(*names))
    from nucleus_course.figures.training import read_log

    row.log = read_log(folder) if (folder / "log.jsonl").is_file() else []
    if row.log:
        done, planned = row.log[-1]["epoch"], row.epochs[1]
        over = bool(minutes and row.log[-1]["seconds"] >= 59 * minutes)  # with a tolerance
        row.epochs, row.finished = (done, planned), done >= planned or over
    report = _read(folder / "report.json")
    if report:
        metrics = report.get("metrics", {})
        row.metrics = {key: value for key, value in metrics.items() if key in METRICS}
        row.images = len(report.get("images", {}))
        if report.get("split") != "validation":
            row.warnings.append(f"scored on split {report.get('split') or 'unknown'}")
        if report.get("synthetic"):
            row.warnings.append("scored on synthetic images")
    return row


def _read(path):
    return read_json(path, "move the run folder away") if path.is_file() else None


def commands(row, data="DATA"):
    """The commands that a row still needs: lists of words, each a call of ``nucleus-course``."""
    steps = []
    if not row.finished and not (row.metrics and not row.epochs[0]):
        train = ["train", "--data", data, "--preset", row.preset, "--run", str(row.folder)]
        train += ["--weights", row.start] if row.start and not row.epochs[0] else []
        steps.append(train + ([*row.asked, "--resume"] if row.epochs[0] else []))
    if steps or not row.metrics:
        weights = str(row.folder / "weights")
        steps.append(["thresholds", "--data", data, "--weights", weights])
        out = str(row.folder / "report.json")
        steps.append(["evaluate", "--data", data, "--weights", weights, "--out", out])
    return steps


def shell(words):
    """The command as text for a shell."""
    return shlex.join(["nucleus-course", *words])


def table_of(name, rows):
    """The table as a rich table of at most 80 columns, the published rows on top."""
    from rich import box
    from rich.table import Table

    notes = [f"{row.preset}: {text}." for row in rows for text in row.warnings]
    published = [preset for preset in PUBLISHED if any(row.preset == preset for row in rows)]
    if published:
        sizes = sorted({row.images for row in rows if row.images})
        images = f", {' or '.join(map(str, sizes))} images" if sizes else ""
        notes.insert(0, "Published: Johnson (2018), on a validation split and with an AP evaluator and a 'mask average "
                        f"IoU' that the paper does not define. Ours: split 'validation'{images}.")  # fmt: skip
    table = Table(
        title=f"{TITLES[name]}, percent", caption="\n".join(notes) or None, box=box.SIMPLE_HEAD, width=80,
        title_justify="left", caption_justify="left", caption_style="italic", pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column("run", overflow="fold")
    table.add_column("start", no_wrap=True)
    table.add_column("epochs", justify="right", no_wrap=True)
    for title in METRICS.values():
        table.add_column(title, justify="right", no_wrap=True)
    for preset in published:
        ap, iou = (f"{value:.2f}" for value in PUBLISHED[preset])
        name = f"{get_preset(preset).model.backbone}, published"
        table.add_row(name, "coco", "100", ap, "", iou, "")
    if published:
        table.add_section()
    for row in rows:
        values = [row.metrics.get(key) for key in METRICS]
        mark = "*" if row.warnings else ""
        cells = ["" if v is None else f"{v:.2f}" for v in values]
        style = "" if row.metrics else "dim"
        table.add_row(row.label + mark, row.start or "random", row.state, *cells, style=style)
    return table


def to_json(name, rows):
    """The table as JSON types."""
    return {
        "table": name,
        "published": {p: {"coco_ap": ap, "mask_average_iou": iou} for p, (ap, iou) in PUBLISHED.items()},
        "rows": [
            {"preset": r.preset, "start": r.start, "state": r.state, "epochs": list(r.epochs), "metrics": r.metrics, "warnings": r.warnings}
            for r in rows
        ],
    }  # fmt: skip


def draw_table(name, rows):
    """Figure and caption: AP and mask IoU of every run and the published ones, and validation AP by epoch."""
    from nucleus_course.figures import style

    height = 2.4 + 0.34 * (len(rows) + 2)
    figure, (left, right) = style.new_figure(11.0, height, 2, width_ratios=(3, 2))
    published = [p for p in PUBLISHED if any(r.preset == p for r in rows)]
    places = [f"{get_preset(p).model.backbone}, published" for p in published]
    points = [dict(zip(("coco_ap", "mean_mask_iou"), PUBLISHED[p])) for p in published]
    for row in rows:
        places.append(row.label)
        points.append(row.metrics)
        if not row.metrics:
            where = {"xycoords": ("axes fraction", "data"), "ha": "center", "va": "center"}
            paper = {"fc": "white", "ec": "none", "pad": 1.0}  # hides the grid line
            left.annotate(row.state, (0.5, len(places) - 1), **where, color=style.GREY, fontsize=style.TEXT, bbox=paper)  # fmt: skip
    for key, marker, colour, label in (
        ("coco_ap", "o", style.BLUE, "COCO AP"),
        ("mean_mask_iou", "s", style.ORANGE, "mean mask IoU"),
    ):
        left.plot([], [], marker, color=colour, label=label)
        for place, values in enumerate(points):
            if values.get(key) is not None:
                face = "white" if place < len(published) else colour
                left.plot(values[key], place, marker, mfc=face, mec=colour, ms=8)
    style.row_ticks(left, places)
    left.grid(axis="y", color="0.9")
    style.legend(left, "above", 2)
    style.tidy(left, "percent (hollow: published)", "")
    drawn = 0
    for row in rows:
        curve = [(r["epoch"], r["coco_ap"]) for r in row.log if r.get("coco_ap") is not None]
        if curve:
            right.plot(*zip(*curve), label=row.label, marker=".", **style.looks(drawn))
            drawn += 1
    if drawn:
        style.legend(right, "below", 2)
    else:
        style.empty(right, "not run")
    style.tidy(right, "epoch", "validation AP, percent")
    scored = sum(bool(row.metrics) for row in rows)
    beside = ", beside the published values" if published else ""
    caption = f"{TITLES[name]}: {scored} of {len(rows)} runs scored on the validation split"
    return figure, f"{caption}{beside}."
