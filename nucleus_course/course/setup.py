"""What every notebook of the course begins with: which data, which weights, how a figure is shown.

    from nucleus_course import course

    data = course.find_data()          # the real BBBC038 where it is found, else the embedded sample
    model = course.find_model()        # the shipped weights where they are found
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

DATA_VARIABLE = "NUCLEUS_COURSE_DATA"
WEIGHTS_VARIABLE = "NUCLEUS_COURSE_WEIGHTS"


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
    """Decide which data the notebooks use, and say so; cells that take over five seconds then say that too.

    In this order: the path in the environment variable ``NUCLEUS_COURSE_DATA`` (``sample`` asks for
    the embedded sample), the places that ``nucleus-course doctor`` looks at, and the embedded sample.

    Raises:
        UserError: if the variable names something that is not there.
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


def find_model(name: str = "compact", verbose: bool = True):
    """The shipped model ``name``; without its weights the same network untrained, which is said.

    The environment variable ``NUCLEUS_COURSE_WEIGHTS`` puts another model in its place: a shipped name,
    a model folder or a run folder. Returns a :class:`nucleus_course.MaskRCNN` with one more attribute,
    ``trained`` (bool).

    Raises:
        UserError: if the variable names something that is not there.
    """
    watch_cells()
    quiet_backend()
    import nucleus_course as nc
    from nucleus_course.models.weights.folder import shipped_weights

    wanted = os.environ.get(WEIGHTS_VARIABLE, "").strip()
    if wanted or name in shipped_weights():  # damaged weights are an error, not "untrained"
        model = nc.load(wanted or name)
        model.trained = True
        message = (
            f"Weights: {name}, trained on BBBC038's training split; they come with the course."
        )
        if wanted:
            message = f"Weights: {Path(wanted).name}, chosen by {WEIGHTS_VARIABLE}."
    else:
        import keras

        keras.utils.set_random_seed(2018)
        model = nc.create(name)
        model.trained = False
        message = f"Weights: none found for '{name}', so this network is untrained: expect figures without sense."
    if verbose:
        print(message)
    return model


def work_folder(*parts: str, fresh: bool = False) -> Path:
    """A folder for what a notebook writes: ``out/course/...`` in the project. ``fresh`` empties it first."""
    folder = (project_root() or Path.cwd()) / "out" / "course"
    folder = folder.joinpath(*parts)
    if fresh and parts and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def quiet_backend() -> str:
    """Load Keras and its backend without the backend's start-up log, which is no part of a lesson."""
    from nucleus_course.backend import load_backend

    warnings.filterwarnings("ignore", category=UserWarning, module="keras")
    # a lesson tries many image sizes; each is traced once
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return load_backend(None)


def free_memory() -> None:
    """Forget the networks that no variable holds any more, and give their memory back to the system.

    A small machine then has room for the next one. Delete the variable first: ``del model``.
    """
    import keras

    from nucleus_course._util.memory import give_back

    keras.backend.clear_session()
    give_back()


def show(drawn, dpi: int = DPI) -> None:
    """Display what a ``draw_*`` function returned, (figure, caption): the picture with the caption as its
    alternative text, and the caption below it."""
    from IPython.display import display

    figure, caption = drawn
    display({"text/html": html(figure, caption, dpi), "text/plain": caption}, raw=True)


def claim(sentence: str, holds) -> None:
    """Print whether a sentence of the text holds for this data and these weights.

    The solutions' claims are stored, and compared whenever the notebooks are tested.
    """
    print(f"{'true' if holds else 'NOT TRUE HERE'}: {sentence}")


def check_setup() -> bool:
    """Print what ``nucleus-course doctor`` finds, with paths shortened; True if every notebook can run."""
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
    """A record on which counting is hard: of a few small images, the one whose foreground loses most
    nuclei when its connected pieces are counted. The same on every run."""
    from skimage.measure import label

    sizes, counts = dataset.sizes, dataset.counts
    likely = [i for i in dataset.ids if max(sizes[i]) <= 400 and 12 <= counts[i] <= 80] or list(
        dataset.ids
    )

    def lost(record):
        return record.count - label(record.labels > 0, connectivity=1).max()

    return max((dataset[image_id] for image_id in likely[:tries]), key=lost)


def pick_each_type(dataset, per_type: int = 1):
    """The first ``per_type`` records of each image type that the data set holds, in the order of the types."""
    from nucleus_course.data import IMAGE_TYPES

    types = dataset.types
    chosen = []
    for kind in IMAGE_TYPES:
        ids = [i for i in dataset.ids if types[i] == kind and dataset.counts[i] > 0]
        # The image whose count is nearest the type's median speaks for it better than the first one.
        if ids:
            middle = sorted(dataset.counts[i] for i in ids)[len(ids) // 2]
            chosen += sorted(ids, key=lambda i: abs(dataset.counts[i] - middle))[:per_type]
    return [dataset[image_id] for image_id in chosen]
