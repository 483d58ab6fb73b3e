"""The start of every notebook: which data, which weights, and how to show a figure.

    from nucleus_course import course

    data = course.find_data()          # the real BBBC038 if it is found, else the embedded sample
    model = course.find_model()        # with the shipped weights if they are found
    course.show(draw_something(...))   # a figure with its caption and alternative text

Importing this module loads no deep-learning backend.
"""

import logging
import os
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from nucleus_course._util.errors import UserError
from nucleus_course.course.waiting import watch_cells
from nucleus_course.figures.style import DPI, html
from nucleus_course.models.weights.folder import find_weights, shipped_weights

DATA_VARIABLE = "NUCLEUS_COURSE_DATA"
WEIGHTS_VARIABLE = "NUCLEUS_COURSE_WEIGHTS"


@dataclass(frozen=True)
class CourseData:
    """The data set of a notebook.

    ``source`` is for ``load_dataset``; on ``evaluation_split`` the shipped weights were not trained:
    the validation split of BBBC038, or the whole sample.
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
    """The checkout of the notebooks: the first folder with the package and a pyproject.toml or notebooks,
    going up from the working folder and from this file. None outside a checkout."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "nucleus_course").is_dir():
                return folder
            if (folder / "notebooks").is_dir() and (folder / "nucleus_course").is_dir():
                return folder
    return None


def shown(path: Path) -> str:
    """A path to print: relative to the project if that is short, else its last two parts."""
    root = project_root()
    path = Path(path)
    if root is not None:
        relative = os.path.relpath(path.resolve(), root.resolve())
        if not relative.startswith(os.path.join("..", "..")):
            return Path(relative).as_posix()
    return "…/" + "/".join(path.parts[-2:])


def find_data(verbose: bool = True) -> CourseData:
    """Decide which data the notebook uses, and print it; from now on slow cells show that they are working.

    In this order: the path in the environment variable ``NUCLEUS_COURSE_DATA`` (``sample`` means the
    embedded sample), the places that ``nucleus-course doctor`` searches, and the embedded sample.

    Raises:
        UserError: the variable names something that is not there.
    """
    from nucleus_course.reports.doctor import find_bbbc038

    watch_cells()
    wanted = os.environ.get(DATA_VARIABLE, "").strip()
    found = None if wanted == "sample" else find_bbbc038()
    if found is None and wanted not in ("", "sample"):
        raise UserError(
            f"{DATA_VARIABLE} is set to '{wanted}', which holds no BBBC038 images: correct it or unset it"
        )
    if found is None:
        data = CourseData("sample", "the embedded sample", "the package", synthetic=True)
    else:
        data = CourseData(str(found), "BBBC038 stage1_train", shown(found), synthetic=False)
    if verbose:
        print(f"Data: {data}")
        if data.synthetic:
            print(
                "To use the real images: `nucleus-course download`, or set NUCLEUS_COURSE_DATA to their folder or zip."
            )
    return data


def chosen_weights(name: str) -> tuple[str | None, str]:
    """Which weights the notebooks use for ``name``, and the line that says so.

    Returns:
        The environment variable ``NUCLEUS_COURSE_WEIGHTS``, else ``name`` if its weights ship, else None.

    Raises:
        UserError: the variable names something that is not there.
    """
    wanted = os.environ.get(WEIGHTS_VARIABLE, "").strip()
    if wanted:
        try:
            find_weights(wanted)
        except UserError as error:
            raise UserError(f"{WEIGHTS_VARIABLE}: {error}") from None
        return wanted, f"Weights: {Path(wanted).name}, chosen by {WEIGHTS_VARIABLE}."
    if name in shipped_weights():
        about = "trained on BBBC038's training split; they come with the course"
        return name, f"Weights: {name}, {about}."
    about = "so this network is untrained: expect meaningless figures"
    return None, f"Weights: none found for '{name}', {about}."


def find_model(name: str = "compact", verbose: bool = True):
    """The shipped model ``name``, or, with a message, the same network untrained if there are no weights.

    The environment variable ``NUCLEUS_COURSE_WEIGHTS`` replaces it by another model: a shipped name,
    a model folder or a run folder. Returns a :class:`nucleus_course.MaskRCNN` with one more attribute,
    ``trained`` (bool).

    Raises:
        UserError: the variable names something that is not there.
    """
    watch_cells()
    quiet_backend()
    import keras

    import nucleus_course as nc

    source, about = chosen_weights(name)
    if source is None:
        keras.utils.set_random_seed(2018)
    model = nc.create(name) if source is None else nc.load(source)
    model.trained = source is not None
    if verbose:
        print(about)
    return model


def work_folder(*parts: str, fresh: bool = False) -> Path:
    """The folder for a notebook's files, ``out/course/...`` in the project; ``fresh`` empties it first.

    The environment variable ``NUCLEUS_COURSE_WORK`` names another folder than ``out/course``.
    """
    usual = (project_root() or Path.cwd()) / "out" / "course"
    folder = Path(os.environ.get("NUCLEUS_COURSE_WORK") or usual).joinpath(*parts)
    if fresh and parts and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def quiet_backend() -> str:
    """Load Keras and its backend without the backend's start-up log."""
    from nucleus_course.backend import load_backend

    warnings.filterwarnings("ignore", category=UserWarning, module="keras")
    # Notebooks use many image sizes, and TensorFlow warns about tracing each.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return load_backend(None)


def free_memory() -> None:
    """Return the memory of networks that no variable holds any more to the system.

    Delete the variable first: ``del model``.
    """
    import keras

    from nucleus_course._util.memory import give_back

    keras.backend.clear_session()
    give_back()


def show(drawn, dpi: int = DPI) -> None:
    """Display the (figure, caption) of a ``draw_*`` function; the caption is also the alternative text."""
    from IPython.display import display

    figure, caption = drawn
    display({"text/html": html(figure, caption, dpi), "text/plain": caption}, raw=True)


def claim(sentence: str, holds) -> None:
    """Print whether a sentence of the text is true for this data and these weights.

    The solutions' claims are stored, and compared when the notebooks are tested.
    """
    print(f"{'true' if holds else 'NOT TRUE HERE'}: {sentence}")


def check_setup() -> bool:
    """Print the report of ``nucleus-course doctor`` with short paths; True if every notebook can run."""
    import dataclasses

    from rich.console import Console

    from nucleus_course.reports.doctor import diagnose, report

    quiet_backend()
    findings = [
        dataclasses.replace(finding, value=shown(finding.value))
        if os.path.isabs(finding.value)
        else finding
        for finding in diagnose()
    ]
    return report(
        findings,
        Console(
            file=sys.stdout,
            force_jupyter=False,
            force_terminal=False,
            width=100,
            no_color=True,
            highlight=False,
        ),
    )


def pick_crowded(dataset, tries: int = 12):
    """A record on which counting is hard: of a few small images, the one for which counting connected
    pieces of the foreground misses most nuclei. The same on every run."""
    from skimage.measure import label

    sizes, counts = dataset.sizes, dataset.counts
    likely = [i for i in dataset.ids if max(sizes[i]) <= 400 and 12 <= counts[i] <= 80] or list(
        dataset.ids
    )

    def lost(record):
        return record.count - label(record.labels > 0, connectivity=1).max()

    return max((dataset[image_id] for image_id in likely[:tries]), key=lost)


def pick_each_type(dataset, per_type: int = 1):
    """``per_type`` records of each image type in the data set, in the order of the types."""
    from nucleus_course.data import IMAGE_TYPES

    types = dataset.types
    chosen = []
    for kind in IMAGE_TYPES:
        ids = [i for i in dataset.ids if types[i] == kind and dataset.counts[i] > 0]
        if ids:  # those with a count nearest to the type's median
            middle = sorted(dataset.counts[i] for i in ids)[len(ids) // 2]
            chosen += sorted(ids, key=lambda i: abs(dataset.counts[i] - middle))[:per_type]
    return [dataset[image_id] for image_id in chosen]
