"""The command line without a model: help, the choice of images, one-line errors and their exit codes."""

import errno
import os
import re
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from terminal import one_line_error, plain, run
from typer.main import get_command
from typer.testing import CliRunner

from nucleus_course._util.errors import UserError
from nucleus_course.cli import common
from nucleus_course.cli.app import app
from nucleus_course.prediction.image_files import find_images

COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)
CONTRACT = {"demo", "doctor", "download", "train", "evaluate", "predict", "benchmark"}
runner = CliRunner()


def png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)


# ------------------------------------------------------------------------------------------- help


def test_no_arguments_show_the_commands():
    text = plain(run().output)
    assert CONTRACT <= set(COMMANDS)
    for name in COMMANDS:
        assert name in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_says_what_is_written(name):
    result = runner.invoke(app, [name, "--help"], env={"COLUMNS": "120"})
    text = plain(result.output)
    assert result.exit_code == 0
    assert "Example" in text and f"nucleus-course {name}" in text
    assert re.search(r"[Ww]rites", text)
    (command,) = (c for c in app.registered_commands if (c.name or c.callback.__name__) == name)
    for block in command.callback.__doc__.split("\n\n"):
        if block.startswith("\b"):  # shown unwrapped, so it must fit 80 columns
            assert max(map(len, block.splitlines())) <= 78, block
    parameters = get_command(app).commands[name].params
    assert all(getattr(p, "help", "") or p.name == "help" for p in parameters), parameters


def test_version():
    import nucleus_course

    assert run("--version").output.strip() == f"nucleus-course {nucleus_course.__version__}"


def test_unknown_option_and_command_exit_2():
    assert run("train --nonsense").exit_code == 2
    assert run("nonsense").exit_code == 2


# ------------------------------------------------------------------------------ which images, which names


def test_folders_are_walked_and_masks_passed_over(tmp_path, grey):
    png(tmp_path / "a" / "images" / "a.png", grey)
    png(tmp_path / "a" / "masks" / "m1.png", grey)
    png(tmp_path / "b" / "deep" / "c.TIF", grey)
    png(tmp_path / "masks" / "d.png", grey)  # no images/ beside it: an ordinary folder
    png(tmp_path / ".hidden" / "e.png", grey)
    png(tmp_path / "results" / "labels" / "f.png", grey)
    (tmp_path / "notes.txt").write_text("no image")
    files = find_images([tmp_path], exclude=tmp_path / "results")
    assert [f.file_name for f in files] == ["a/images/a.png", "b/deep/c.TIF", "masks/d.png"]
    assert [f.stem for f in files] == ["a", "c", "d"]


def test_results_beside_the_images_are_no_images(tmp_path, grey):
    for name in ("a.png", "labels/a.png", "overlays/a.png", "more/labels/b.png"):
        png(tmp_path / name, grey)
    files = find_images([tmp_path], exclude=tmp_path)
    assert [f.file_name for f in files] == ["a.png", "more/labels/b.png"]


def test_a_named_file_is_taken_once_whatever_its_suffix(tmp_path, grey):
    odd = png(tmp_path / "x.png", grey).rename(tmp_path / "x.dat")
    assert [f.file_name for f in find_images([odd, odd])] == ["x.dat"]


def test_shared_stems_are_called_by_path_then_folder_then_suffix(tmp_path, grey, capsys):
    for name in ("d1/a.png", "d2/a.png", "d2/a.tif", "b.png"):
        png(tmp_path / "in" / name, grey)
    files = {f.stem: f.file_name for f in find_images([tmp_path / "in"])}
    assert files == {
        "b": "b.png", "d1__a": "d1__a.png", "d2__a_png": "d2__a_png.png", "d2__a_tif": "d2__a_tif.tif",
    }  # fmt: skip
    png(tmp_path / "other" / "b.png", grey)
    stems = [f.stem for f in find_images([tmp_path / "in" / "b.png", tmp_path / "other" / "b.png"])]
    assert stems == ["in__b", "other__b"]
    for name in ("one/in/b.png", "two/in/b.png"):
        png(tmp_path / name, grey)
    stems = [f.stem for f in find_images([tmp_path / "one" / "in", tmp_path / "two" / "in"])]
    assert stems == ["one__in__b", "two__in__b"]
    assert "2 images called by path" in capsys.readouterr().err


def test_shared_stems_that_differ_in_case_only_are_told_apart(tmp_path, grey):
    png(tmp_path / "Cell.png", grey), png(tmp_path / "sub" / "cell.png", grey)
    stems = [f.stem.casefold() for f in find_images([tmp_path])]
    assert len(set(stems)) == 2


def test_no_images(tmp_path):
    with pytest.raises(UserError, match="no images in"):
        find_images([tmp_path])
    with pytest.raises(UserError, match="no such file or folder"):
        find_images([tmp_path / "gone"])


# ------------------------------------------------------------- bad input: one line, exit 2, and the mend


def test_missing_path(tmp_path):
    one_line_error(run(f"train --data {tmp_path / 'gone'}"), "gone")
    one_line_error(run(f"doctor --data {tmp_path / 'gone.zip'}"), "gone.zip")
    one_line_error(run(f"predict {tmp_path / 'gone.png'}"), "no such file", "gone.png")


def test_empty_folder(tmp_path):
    one_line_error(run(f"doctor --data {tmp_path}"), str(tmp_path))
    one_line_error(run(f"predict {tmp_path}"), "no images in")


def test_zip_that_is_none(tmp_path):
    path = tmp_path / "data.zip"
    path.write_bytes(b"not a zip at all")
    one_line_error(run(f"doctor --data {path}"), "data.zip")
    one_line_error(run(f"predict {path}"), "zip")


def test_zip_with_names_outside(tmp_path, grey):
    path = tmp_path / "evil.zip"
    good = png(tmp_path / "a.png", grey).read_bytes()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../evil.png", good)
        file.writestr("a/images/a.png", good)
    one_line_error(run(f"train --data {path} --split all"), "evil.png", "outside")
    assert not (tmp_path.parent / "evil.png").exists()


def test_unknown_preset_weights_split_backend(tmp_path):
    one_line_error(run("train --data sample --augment none"), "unknown --augment 'none'", "plain")
    one_line_error(run("train --data sample --preset huge"), "unknown preset 'huge'", "compact")
    one_line_error(run("train --data sample --weights mine"), "no weights 'mine'")
    one_line_error(run("evaluate --data sample --weights mine"), "no weights 'mine'")
    one_line_error(run("evaluate --data sample --split half --weights sample"), "no weights")
    one_line_error(
        run(f"evaluate --data sample --split half --predictions {tmp_path}"), "unknown split 'half'"
    )
    one_line_error(run("train --data sample --backend theano"), "unknown backend 'theano'", "jax")


def test_crop_that_does_not_fit():
    one_line_error(run("train --data sample --crop 150"), "--crop 150", "160")


def test_epochs_and_minutes_are_alternatives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one_line_error(
        run("train --data sample --epochs 2 --minutes 1"), "--epochs and --minutes", "one of them"
    )
    assert not list(tmp_path.iterdir())


def test_weights_and_predictions_are_alternatives(tmp_path):
    one_line_error(run("evaluate --data sample"), "--weights or --predictions")


def test_out_of_the_wrong_kind(tmp_path, grey):
    image = png(tmp_path / "a.png", grey)
    one_line_error(run(f"predict {image} --out {image}"), "is a file")
    one_line_error(
        run(f"evaluate --data sample --predictions {image} --out {tmp_path}"), "is a folder"
    )


def test_mistyped_names_cost_no_prediction(tmp_path, monkeypatch):
    def too_early(*args, **options):
        pytest.fail("the data were read first")

    monkeypatch.setattr(common, "open_data", too_early)
    choose = "thresholds --data sample --weights compact"
    one_line_error(run(choose, "--metric coco_ap"), "'coco_ap' has no operating point to choose")
    one_line_error(run(choose, "--at-least iou=3"), "'iou' has no operating point to choose")
    score = f"evaluate --data sample --weights compact --out {tmp_path / 'r.json'} --against"
    one_line_error(run(score, "compat"), "no weights 'compat'")
    one_line_error(run(score, "other.json"), "other.json: no such file")


def test_predictions_that_are_no_json(tmp_path):
    path = tmp_path / "predictions.json"
    path.write_text("{")
    one_line_error(
        run(f"evaluate --data sample --predictions {path}"), "predictions.json", "not JSON"
    )


# ---------------------------------------------------------------------------- errors of the machine


def missing(name):
    return ModuleNotFoundError(f"No module named '{name}'", name=name)


DISK = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/run/log.csv")
HDF5 = OSError("Can't write data (file write failed: error message = 'No space left on device')")
LOCKED = PermissionError(errno.EACCES, "Permission denied", "/locked/x")
LIBRARY = ImportError("libGL.so.1: cannot open shared object file")


@pytest.mark.parametrize(
    "error, code, words",
    [
        (UserError("a file is wrong: mend it"), 2, ["a file is wrong"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (DISK, 2, ["disk is full", "log.csv"]),
        (HDF5, 2, ["disk is full"]),
        (LOCKED, 2, ["no permission", "/locked/x"]),
        (missing("tensorflow"), 2, ["TensorFlow", "pip install tensorflow"]),
        (missing("imgaug"), 2, ["imgaug", "pip install imaug"]),
        (LIBRARY, 2, ["libGL", "opencv-python-headless"]),
        (MemoryError(), 2, ["out of memory"]),
    ],
)
def test_errors_of_the_machine_are_one_line(error, code, words):
    import typer

    broken = typer.Typer()

    @broken.command()
    @common.friendly
    def job():
        raise error

    one_line_error(runner.invoke(broken, []), *words, code=code)


def test_a_warning_is_one_line_without_code(capsys):
    @common.friendly
    def job():
        warnings.warn("some may be missing", stacklevel=1)

    job()
    assert capsys.readouterr().err.splitlines() == ["warning: some may be missing"]


def test_bugs_keep_their_traceback():
    import typer

    broken = typer.Typer()

    @broken.command()
    @common.friendly
    def job():
        raise ValueError("a bug")

    assert isinstance(runner.invoke(broken, []).exception, ValueError)


def test_a_full_disk_leaves_no_half_file(tmp_path, grey):
    """A report written to a full device (Linux has one; elsewhere the write is made to fail)."""
    from nucleus_course._util.files import atomic_write
    from nucleus_course.prediction.label_images import write_labels

    target = tmp_path / "labels" / "a.tif"
    write_labels(target, np.ones((4, 4), np.int32))
    before = target.read_bytes()
    with pytest.raises(OSError), atomic_write(target) as place:
        place.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
    assert target.read_bytes() == before
    assert [p.name for p in target.parent.iterdir()] == ["a.tif"]


BLOCK = (
    "import sys\n"
    "class Block:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.split('.')[0] == {name!r}:\n"
    "            raise ModuleNotFoundError(f\"No module named '{{name}}'\", name=name)\n"
    "sys.meta_path.insert(0, Block())\n"
)


@pytest.mark.parametrize(
    "blocked, title", [("tensorflow", "TensorFlow"), ("jax", "JAX"), ("torch", "PyTorch")]
)
def test_backend_that_is_not_installed(blocked, title, tmp_path, grey, command):
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(name=blocked))
    image = png(tmp_path / "a.png", grey)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])])
    result = command("predict", image, "--backend", blocked, PYTHONPATH=path)
    one_line_error(result, f"{title} is not installed", f"pip install {blocked}")


def test_interrupt_of_the_real_command_exits_130(tmp_path, grey):
    """Ctrl-C while the backend loads: one line, 130."""
    import signal
    import subprocess

    if sys.platform == "win32":
        pytest.skip("no SIGINT to a child here")
    image = png(tmp_path / "a.png", grey)
    code = (
        "import signal, os, nucleus_course.cli.predict as p\n"
        "p.find_images = lambda *a, **k: signal.raise_signal(signal.SIGINT)\n"
        "p.load_backend = lambda *a: None\n"
        "from nucleus_course.cli import main; main()\n"
    )
    words = [sys.executable, "-c", code, "predict", str(image)]
    options = {"capture_output": True, "text": True, "env": {**os.environ, "NO_COLOR": "1"}}
    done = subprocess.run(words, **options)
    assert signal.SIGINT and done.returncode == 130
    assert done.stderr.strip() == "error: interrupted"


def test_label_images_widen_above_65535(tmp_path):
    import tifffile

    from nucleus_course.prediction.label_images import write_labels

    labels = np.arange(300 * 300, dtype=np.int32).reshape(300, 300)
    write_labels(tmp_path / "many.tif", labels)
    write_labels(tmp_path / "few.tif", labels % 65536)
    many, few = tifffile.imread(tmp_path / "many.tif"), tifffile.imread(tmp_path / "few.tif")
    assert many.dtype == np.uint32 and (many == labels).all()
    assert few.dtype == np.uint16 and (few == labels % 65536).all()
