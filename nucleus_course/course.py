"""What every notebook of the course begins with: which data, which weights, how a figure is shown.

    from nucleus_course import course

    data = course.find_data()          # the real BBBC038 where it is found, else the embedded sample
    model = course.find_model()        # the shipped weights where they are found
    course.show(draw_something(...))   # a figure with its caption and alternative text

Importing this module loads no deep-learning backend.
"""

import hashlib
import json
import os
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from nucleus_course.errors import UserError

DATA_VARIABLE = "NUCLEUS_COURSE_DATA"
SHOWN_DPI = 80


@dataclass(frozen=True)
class CourseData:
    """The data set a notebook works on.

    ``source`` goes to ``load_dataset``; ``evaluation_split`` is what the shipped weights were not
    trained on: the validation split of BBBC038, or the whole of the sample.
    """

    source: str
    name: str
    where: str
    synthetic: bool

    @property
    def evaluation_split(self) -> str:
        return "all" if self.synthetic else "validation"

    def __str__(self) -> str:
        kind = "synthetic images, drawn by a program" if self.synthetic else "real images"
        return f"{self.name} ({kind}), from {self.where}"


def project_root() -> Path | None:
    """The checkout that the notebooks belong to: the first folder with a pyproject.toml and the package,
    looking upwards from the working folder and from this file. None outside a checkout."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "nucleus_course").is_dir():
                return folder
            if (folder / "notebooks").is_dir() and (folder / "nucleus_course").is_dir():
                return folder
    return None


def shown(path: Path) -> str:
    """A path for print: relative to the project where that is short, else its last two parts."""
    root = project_root()
    path = Path(path)
    if root is not None:
        relative = os.path.relpath(path.resolve(), root.resolve())
        if not relative.startswith(os.path.join("..", "..")):
            return Path(relative).as_posix()
    return "…/" + "/".join(path.parts[-2:])


def find_data(verbose: bool = True) -> CourseData:
    """Decide which data the notebooks use, and say so.

    In this order: the path in the environment variable ``NUCLEUS_COURSE_DATA`` (``sample`` asks for
    the embedded sample), ``data/bbbc038`` or ``bbbc038`` in the project, ``../shared/bbbc038`` beside
    it, and the embedded sample.

    Raises:
        UserError: if the variable names something that is not there.
    """
    wanted = os.environ.get(DATA_VARIABLE, "").strip()
    if wanted == "sample":
        found = None
    elif wanted:
        found = _stage1(Path(wanted).expanduser())
        if found is None:
            raise UserError(f"{DATA_VARIABLE} is set to '{wanted}', which holds no BBBC038 images: correct it or unset it")
    else:
        root = project_root() or Path.cwd()
        places = (root / "data" / "bbbc038", root / "bbbc038", root.parent / "shared" / "bbbc038")
        found = next((path for path in map(_stage1, places) if path), None)
    if found is None:
        data = CourseData("sample", "the embedded sample", "the package", synthetic=True)
    else:
        data = CourseData(str(found), "BBBC038 stage1_train", shown(found), synthetic=False)
    if verbose:
        print(f"Data: {data}")
        if data.synthetic:
            print("To use the real images: `nucleus-course download`, or set NUCLEUS_COURSE_DATA to their folder or zip.")
    return data


def _stage1(path: Path) -> Path | None:
    """stage1_train inside ``path``, whatever of zip, folder of folders or parent folder that is."""
    if path.is_file():
        return path
    for inner in ("stage1_train.zip", "stage1_train"):
        if (path / inner).exists():
            return path / inner
    if path.is_dir() and next(path.glob("*/images/*"), None) is not None:
        return path
    return None


def find_model(name: str = "compact", verbose: bool = True):
    """The shipped model ``name``; without its weights the same network untrained, which is said.

    Returns a :class:`nucleus_course.MaskRCNN` with one more attribute, ``trained`` (bool).
    """
    quiet_backend()
    import nucleus_course as nc

    try:
        model = nc.MaskRCNN.load(name)
        model.trained = True
        message = f"Weights: {name}, trained on BBBC038's training split, shipped with the course."
    except UserError:
        import keras

        keras.utils.set_random_seed(2018)
        model = nc.MaskRCNN.from_preset(name)
        model.trained = False
        message = f"Weights: none found for '{name}', so this network is untrained: expect figures without sense."
    if verbose:
        print(message)
    return model


def predictions_for(model, dataset, verbose: bool = True):
    """Predictions of ``model`` on every image of ``dataset``, computed once and kept in ``out/course``.

    The file is named after the weights and the image ids, so that another model or data set never
    finds it. Returns :class:`nucleus_course.Predictions`.
    """
    import nucleus_course as nc

    path = work_folder() / f"predictions-{_fingerprint(model, dataset)}.json"
    if path.exists():
        if verbose:
            print(f"Predictions of {len(dataset)} images read from {shown(path)}.")
        return nc.Predictions.load(path)
    if verbose:
        print(f"Detecting nuclei in {len(dataset)} images (kept for the next time) ...")
    predictions = nc.predict_dataset(model, dataset, progress=False)
    predictions.save(path)
    return predictions


def _fingerprint(model, dataset) -> str:
    digest = hashlib.sha256("\n".join([dataset.name, *dataset.ids]).encode())
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    digest.update(json.dumps(str(model.thresholds)).encode())
    return digest.hexdigest()[:12]


def work_folder(*parts: str, fresh: bool = False) -> Path:
    """A folder for what a notebook writes: ``out/course/...`` in the project. ``fresh`` empties it first."""
    folder = (project_root() or Path.cwd()) / "out" / "course"
    folder = folder.joinpath(*parts)
    if fresh and parts and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def quiet_backend() -> None:
    """Ask TensorFlow for errors only, before it is imported: its start-up log is no part of a lesson."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    warnings.filterwarnings("ignore", category=UserWarning, module="keras")


def png(figure, dpi: int = SHOWN_DPI) -> bytes:
    """A matplotlib figure as PNG bytes; the figure is closed."""
    import io

    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return buffer.getvalue()


def show(drawn, dpi: int = SHOWN_DPI) -> None:
    """Display what a ``draw_*`` function returned, (figure, caption): the picture, with the caption
    as its alternative text and again, readable, below it."""
    from IPython.display import Image, Markdown, display

    figure, caption = drawn
    display(Image(data=png(figure, dpi), format="png", alt=caption))
    display(Markdown(f"*{caption}*"))


def check_setup() -> bool:
    """Print what the course needs and whether it is there; True if every notebook can run."""
    import importlib
    import platform

    quiet_backend()
    rows, good = [("Python", platform.python_version(), sys.version_info >= (3, 10))], True
    for module, label in (("numpy", "NumPy"), ("keras", "Keras"), ("skimage", "scikit-image"), ("imgaug", "imgaug"),
                          ("pycocotools", "pycocotools"), ("matplotlib", "matplotlib"), ("ipywidgets", "ipywidgets")):
        try:
            version = getattr(importlib.import_module(module), "__version__", "found")
            rows.append((label, version, True))
        except ImportError:
            rows.append((label, "missing: run `make setup`, or `pip install -e .`", False))
            good = False
    if good:
        import keras

        rows.append(("Backend", keras.backend.backend(), True))
    free = _free_memory()
    if free is not None:
        rows.append(("Free memory", f"{free / 2**30:.1f} GB", free > 1.5 * 2**30))
    rows.append(("Processors", str(os.cpu_count()), True))
    for label, value, fine in rows:
        print(f"{'ok   ' if fine else 'CHECK'} {label:<14} {value}")
    print("Everything the notebooks need is here." if good else "Something is missing: see the lines marked CHECK.")
    return good


def _free_memory() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().available
