"""`nucleus-course reproduce`: a table of what run folders hold and what is missing."""

import json
import subprocess

import pytest
from terminal import one_line_error, run
from typer.main import get_command
from typer.testing import CliRunner

from nucleus_course._util.errors import UserError
from nucleus_course.cli.app import app
from nucleus_course.reports import reproduction

runner = CliRunner()
SHOWN = {"coco_ap": 61.234, "coco_ap50": 85.0, "mean_mask_iou": 74.56, "dsb_score": 58.1}
REPORT = {"metrics": {**SHOWN, "pq": 1.0}, "images": {}, "types": {}, "split": "validation"}


def run_folder(runs, preset, done, planned=100, report=None, **config):
    """A run folder as training and evaluation write it."""
    folder = runs / preset
    folder.mkdir(parents=True)
    config = {"stages": [{"epochs": planned}], "minutes": None, "start": None, **config}
    (folder / "config.json").write_text(json.dumps(config))
    rows = [{"epoch": e, "loss": 3.0, "seconds": 60.0 * e} for e in range(1, done + 1)]
    for row in rows[1::2]:
        row["coco_ap"] = 39.0 + row["epoch"]
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    if report:
        (folder / "report.json").write_text(json.dumps(report))
    return folder


@pytest.fixture(autouse=True)
def nothing_ships(monkeypatch):
    monkeypatch.setattr(reproduction, "shipped_weights", dict)


@pytest.fixture
def runs(tmp_path):
    """Four of table 1's six runs, in every state."""
    run_folder(tmp_path, "paper-resnet50", 100, start="coco", report=REPORT)
    run_folder(tmp_path, "paper-resnet101", 37, start="imagenet")
    run_folder(tmp_path, "paper-resnet50-scratch", 100)
    odd = {**REPORT, "split": "train", "synthetic": True}
    run_folder(tmp_path, "compact", 7, planned=120, minutes=7, report=odd)
    return tmp_path


def test_rows_say_how_far_each_run_came(runs):
    rows = {row.preset: row for row in reproduction.collect("table1", runs)}
    assert {name: row.state for name, row in rows.items()} == {
        "paper-resnet50": "100",
        "paper-resnet101": "37 of 100",
        "paper-resnet50-scratch": "not scored",
        "paper-resnet101-scratch": "not run",
        "strong": "not run",
        "compact": "7",  # trained by the clock, for seven minutes
    }
    assert rows["paper-resnet50"].metrics == SHOWN
    assert rows["paper-resnet50"].warnings == []
    assert rows["paper-resnet101"].warnings == ["started from imagenet, not coco"]
    assert rows["compact"].warnings == ["scored on split train", "scored on synthetic images"]


def test_commands_run_what_is_missing_and_only_that(runs):
    rows = {row.preset: row for row in reproduction.collect("table1", runs)}

    def lines(name):
        return [
            reproduction.shell(words).replace(str(runs), "runs")
            for words in reproduction.commands(rows[name], "a b.zip")
        ]

    score = [
        "nucleus-course thresholds --data 'a b.zip' --weights runs/{0}/weights",
        "nucleus-course evaluate --data 'a b.zip' --weights runs/{0}/weights --out runs/{0}/report.json",
    ]

    def scoring(name):
        return [line.format(name) for line in score]

    assert lines("paper-resnet50") == [] and lines("compact") == []
    assert lines("paper-resnet50-scratch") == scoring("paper-resnet50-scratch")
    assert lines("strong") == [
        "nucleus-course train --data 'a b.zip' --preset strong --run runs/strong",
        *scoring("strong"),
    ]
    assert lines("paper-resnet101") == [
        "nucleus-course train --data 'a b.zip' --preset paper-resnet101 --run runs/paper-resnet101 --resume",
        *scoring("paper-resnet101"),
    ]
    fresh = reproduction.collect("experiments", runs / "none")[1]
    assert "--preset paper-resnet50+mirror" in reproduction.shell(reproduction.commands(fresh)[0])
    assert "--weights coco" in reproduction.shell(reproduction.commands(fresh)[0])


def test_what_was_cut_short_goes_on_to_the_length_it_was_begun_with(tmp_path):
    run_folder(tmp_path, "strong", 7, planned=50)
    # With both epochs and minutes, as once allowed: minutes count.
    run_folder(tmp_path, "compact", 7, planned=50, minutes=30.0)
    rows = {row.preset: row for row in reproduction.collect("table1", tmp_path)}
    assert rows["strong"].state == "7 of 50"
    assert reproduction.commands(rows["strong"])[0][-3:] == ["--epochs", "50", "--resume"]
    words = reproduction.commands(rows["compact"])[0]
    assert words[-3:] == ["--minutes", "30", "--resume"] and "--epochs" not in words


def test_the_printed_commands_are_ones_that_train_understands(runs):
    known = get_command(app).commands
    for table in reproduction.TABLES:
        for row in reproduction.collect(table, runs):
            for name, *words in reproduction.commands(row, "missing.zip"):
                # This only parses, and raises on unknown options.
                known[name].make_context(name, list(words))


def test_table_json_and_figure(runs):
    words = ["reproduce", "table1", "--runs", str(runs), "--data", "stage1_train.zip"]
    done = runner.invoke(app, words, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    table = done.output[: done.output.index("written:")].splitlines()
    assert max(map(len, table)) <= 80
    rows = {line.split()[0]: line.split()[1:] for line in table if line.strip()}
    assert rows["resnet50,"] == ["published", "coco", "100", "56.06", "66.98"]
    assert rows["resnet101,"] == ["published", "coco", "100", "59.40", "70.54"]
    assert rows["paper-resnet50"] == ["coco", "100", "61.23", "85.00", "74.56", "58.10"]
    assert rows["paper-resnet101*"] == ["imagenet", "37", "of", "100"]
    assert rows["strong"] == ["random", "not", "run"]
    assert "does not define" in done.output
    assert "nucleus-course train --data stage1_train.zip --preset strong" in done.output
    document = json.loads((runs / "table1.json").read_text())
    assert document["published"]["paper-resnet50"] == {"coco_ap": 56.06, "mask_average_iou": 66.98}
    assert [r["state"] for r in document["rows"]][4] == "not run"
    assert (runs / "table1.png").read_bytes().startswith(b"\x89PNG")


def test_figure_has_a_mark_for_every_run_and_says_what_is_missing(runs):
    rows = reproduction.collect("table1", runs)
    figure, caption = reproduction.draw_table("table1", rows)
    left, right = figure.axes
    published = ["resnet50, published", "resnet101, published"]
    assert [t.get_text() for t in left.get_yticklabels()][:3] == [*published, "paper-resnet50"]
    points = [pair for line in left.lines for pair in zip(line.get_xdata(), line.get_ydata())]
    marks = {(round(float(x), 2), float(y)) for x, y in points}
    assert {(56.06, 0), (66.98, 0), (59.40, 1), (70.54, 1), (61.23, 2), (74.56, 2)} <= marks
    assert [t.get_text() for t in left.texts] == ["37 of 100", "not scored", "not run", "not run"]
    assert len(right.lines) == 4
    assert caption.startswith("Table 1: two backbones: 2 of 6 runs scored on the validation split")
    assert caption.endswith(", beside the published values.")


def test_run_does_the_missing_ones_and_stops_where_one_fails(runs, monkeypatch):
    called = []

    def fake(words, code=0):
        called.append(words[3:])
        return subprocess.CompletedProcess(words, 1 if "evaluate" in words else 0)

    monkeypatch.setattr(subprocess, "run", fake)
    words = "--data x.zip --run --only strong --backend jax"
    one_line_error(
        run("reproduce table1 --runs", runs, words), "evaluate", "failed: follow its message"
    )
    assert [words[0] for words in called] == ["train", "thresholds", "evaluate"]
    expected = f"train --data x.zip --preset strong --run {runs / 'strong'} --backend jax"
    assert called[0] == expected.split()


@pytest.mark.parametrize(
    "words, message",
    [
        (["table2"], "unknown table 'table2': choose one of table1"),
        (["table1", "--only", "mine"], "table1 has no run 'mine'"),
        (["table1", "--run"], "--run needs the images"),
    ],
)
def test_mistakes_are_one_line(tmp_path, words, message):
    done = run("reproduce", *words, "--runs", tmp_path)
    one_line_error(done, message)
    assert len(done.output.strip().splitlines()) == 1


def test_a_damaged_run_folder_is_named(runs):
    (runs / "compact" / "report.json").write_text("{")
    with pytest.raises(UserError, match="compact/report.json: not JSON"):
        reproduction.collect("table1", runs)


def test_weights_that_ship_with_their_report_stand_in(tmp_path, monkeypatch):
    shipped = tmp_path / "weights" / "compact"
    shipped.mkdir(parents=True)
    (shipped / "report.json").write_text(json.dumps(REPORT))
    monkeypatch.setattr(reproduction, "shipped_weights", lambda: {"compact": shipped})
    row = reproduction.collect("table1", tmp_path / "runs")[-1]
    assert row.state == "scored" and row.metrics["coco_ap"] == 61.234
    assert reproduction.commands(row) == []


def test_the_list_of_recipes():
    done = run("reproduce")
    assert done.exit_code == 0
    for (
        name
    ) in "paper-resnet50 paper-resnet101-scratch strong +mirror +native +long table1".split():
        assert name in done.output


def test_the_note_counts_the_images_that_were_scored(tmp_path):
    """For any data, not a fixed number of one data set's validation split."""

    def note(*sizes):
        rows = [reproduction.Row(f"run{i}", tmp_path, None, metrics={"coco_ap": 1.0}, images=n) for i, n in enumerate(sizes)]  # fmt: skip
        rows.append(reproduction.Row("paper-resnet50", tmp_path, "coco"))
        return reproduction.table_of("table1", rows).caption

    assert "split 'validation', 3 images." in note(3, 3)
    assert "split 'validation', 3 or 67 images." in note(67, 3)
    assert "split 'validation'." in note()
    report = {**REPORT, "images": {"a": {}, "b": {}}}
    run_folder(tmp_path, "compact", 7, planned=7, report=report)
    rows = {row.preset: row for row in reproduction.collect("table1", tmp_path)}
    assert rows["compact"].images == 2
