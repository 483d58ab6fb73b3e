"""Many images as tasks of dask.distributed: on the processes of one machine, or on a cluster.

Every worker loads the model once and writes its results itself, so workers and caller must share a file
system. If a worker is lost, another repeats its task; the files it has written are complete.
"""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nucleus_course._util.errors import UserError
from nucleus_course._util.progress import track
from nucleus_course.backend import is_full_disk
from nucleus_course.prediction import slide_work
from nucleus_course.prediction.image_files import ImageFile, find_images
from nucleus_course.prediction.many import Recipe, Work, reason, say_aside
from nucleus_course.prediction.results import ResultsFolder, Summary

PATIENCE = "30s"  # how long to wait for a scheduler
KILLED = "every worker that had it died (out of memory?): give workers more of it, `dask worker --memory-limit`"

_works: dict[str, Work] = {}  # of this process
_opening, _busy = threading.Lock(), threading.Lock()


@dataclass
class Outcome:
    """The outcome for one image: its ``row`` of counts.csv; ``passed`` if it was done before; or ``error``, one
    line. ``full`` if that was a full disk."""

    row: dict[str, Any] | None = None
    passed: bool = False
    error: str = ""
    full: bool = False
    notes: list[str] = field(default_factory=list)


Outcomes = Iterator[tuple[ImageFile, Outcome]]


def predict_many(
    images: str | Path | Iterable[str | Path],
    out: str | Path = "predictions",
    *,
    weights: Any = "compact",
    client: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> Summary:
    """Detect the nuclei in many images, in this process or on Dask workers, and write a results folder.

    Args:
        images: a file or folder, or several, as for `nucleus-course predict`.
        out: the results folder, which workers must see under the same path.
        weights: a shipped name, a model folder or file; or a function without arguments that
            returns a model, called once by each worker.
        client: a ``distributed.Client``; None runs in this process.
        resume: skip images that are done.
        overwrite: remove earlier results first.
        progress: whether to show a bar.
        options: fields of :class:`~nucleus_course.prediction.many.Recipe`, and options of
            :meth:`~nucleus_course.prediction.segmenter.Segmenter.predict`.

    Returns:
        :class:`~nucleus_course.prediction.results.Summary` of all images in the folder. An image that
        cannot be processed is named in one line on standard error; the others are done.

    Raises:
        UserError: no images, a folder with results of other settings, or none that could be processed.

    Example::

        from distributed import Client, LocalCluster
        with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
            nc.predict_many("wells/", "results", client=client)
    """
    known = {f.name for f in dataclasses.fields(Recipe)}
    fields = {name: value for name, value in options.items() if name in known}
    how = {"diameter": "auto"}  # named, for the results folder keeps the options
    how |= {name: value for name, value in options.items() if name not in known}
    load = weights if callable(weights) else None
    name = str(weights) if load is None else getattr(load, "__name__", type(load).__name__)
    recipe = Recipe(str(Path(out).resolve()), name, load=load, how=how, **fields)
    given = [images] if isinstance(images, (str, Path)) else list(images)
    files = find_images(given, exclude=Path(out))
    outcomes = run(recipe, files, client, resume, overwrite)
    done = 0
    for file, outcome in track(outcomes, "detecting", len(files), progress):
        for line in [*outcome.notes, *([f"skipped: {outcome.error}"] if outcome.error else [])]:
            say_aside(line)
        if outcome.row and outcome.row["image"] != file.file_name:
            say_aside(
                f"{file.path}: its results are called {outcome.row['image']}, because another image has its name"
            )
        done += not outcome.error
    if not done:
        raise UserError(f"none of the {len(files)} images could be processed")
    return ResultsFolder(recipe.out, None).write_tables()


def run(
    recipe: Recipe, files: list[ImageFile], client: Any, resume: bool, overwrite: bool = False
) -> Outcomes:
    """Process every file; yields (file, :class:`Outcome`) as they are done."""
    if client is None:
        work = recipe.open(overwrite=overwrite)
        yield from in_turn(work, files, resume)
        return
    recipe = portable(recipe)
    begin(client, recipe, overwrite)
    yield from spread(client, recipe, files, resume)


def portable(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths, for processes with another working directory."""
    weights = Path(recipe.weights)
    name = str(weights.resolve()) if recipe.load is None and weights.exists() else recipe.weights
    return dataclasses.replace(recipe, out=str(Path(recipe.out).resolve()), weights=name)


def in_turn(work: Work, files: list[ImageFile], resume: bool) -> Outcomes:
    """The files one after the other, in this process."""
    for file in files:
        yield file, _one(work, file, resume)


def connect(address: str):
    """A client of a scheduler.

    Raises:
        UserError: Dask is not installed, or there is no scheduler.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            "--scheduler needs Dask: pip install 'nucleus-course[cluster]' (distributed), here and on the workers"
        ) from None
    try:
        return Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"--scheduler {address}: no scheduler answers ({why})") from None


def begin(client: Any, recipe: Recipe, overwrite: bool = False) -> dict[str, Any]:
    """Start the results folder on a worker, which loads the model for it; returns the folder's settings.

    Raises:
        UserError: other settings, a folder that this machine does not see, or every worker died loading the model.
    """
    if not client.scheduler_info()["workers"]:
        say_aside(
            "the scheduler has no worker yet: waiting for one (`dask worker ADDRESS` starts it)"
        )
    try:
        settings = client.submit(_begin, recipe, overwrite, key=_key("begin"), pure=False).result()
    except Exception as error:
        if not _is_killed(error):
            raise
        raise UserError(f"loading {recipe.weights}: {KILLED}") from None
    try:
        ResultsFolder(recipe.out, settings)
    except OSError as error:
        raise UserError(f"{recipe.out}: cannot be written here ({error})") from None
    return settings


def spread(
    client: Any, recipe: Recipe, files: list[ImageFile], resume: bool, task: Any = None
) -> Iterator[tuple[ImageFile, Outcome]]:
    """One task per file; yields (file, outcome) as they are done. If the loop is left early, the rest is cancelled.

    ``task`` is what a worker does with a file: a function (file, recipe, resume) -> :class:`Outcome`.
    """
    from distributed import as_completed

    place = {_key(file.stem): dataclasses.replace(file, path=file.path.resolve()) for file in files}
    futures = client.map(
        task or _task, list(place.values()), recipe=recipe, resume=resume,
        key=list(place), pure=False, batch_size=1000,
    )  # fmt: skip
    waiting = as_completed(futures)
    try:
        for future in waiting:
            file = place[future.key]
            error = future.exception() if future.status == "error" else None
            if error is None:
                yield file, future.result()
            else:
                yield file, Outcome(error=_reason(error, file.path))
            future.release()
    finally:
        client.cancel([future for future in futures if not future.done()])


def _is_killed(error: Exception) -> bool:
    return type(error).__name__ == "KilledWorker"


def _reason(error: Exception, path: Path) -> str:
    """As :func:`~nucleus_course.prediction.many.reason`, also for a worker that died."""
    return f"{path}: {KILLED}" if _is_killed(error) else reason(error, path)


def _key(name: str) -> str:
    return f"nuclei-{name}-{uuid.uuid4().hex[:12]}"


def _begin(recipe: Recipe, overwrite: bool) -> dict[str, Any]:
    with _opening:
        _works.clear()
        work = _works[recipe.key()] = recipe.open(overwrite=overwrite)
    return work.results.settings


def _work(recipe: Recipe) -> Work:
    """This process's work, made on first use; one model at a time."""
    with _opening:
        key = recipe.key()
        if key not in _works:
            _works.clear()
            _works[key] = recipe.open()
        return _works[key]


def _task(file: ImageFile, recipe: Recipe, resume: bool) -> Outcome:
    work = _work(recipe)
    plane = None if resume and work.results.done(file) else _plane(work, file)
    if plane is not None:
        return _slide(work, recipe, file, plane)
    with _busy:  # one network gains nothing from several threads of one process
        return _one(work, file, resume)


def _plane(work: Work, file: ImageFile):
    try:
        return work.plane(file)
    except (UserError, OSError):
        return None  # _one reports the reason


def _slide(work: Work, recipe: Recipe, file: ImageFile, plane: Any) -> Outcome:
    """A slide: started and finished here, its bands as tasks for any worker."""
    from distributed import worker_client

    notes: list[str] = []
    try:
        with _busy:
            parts = slide_work.begin(work, file, plane)
        with worker_client() as client:
            missing = parts.missing()
            bands = client.map(
                _band, missing, file=file, recipe=recipe, pure=False,
                key=[_key(f"{file.stem}-band-{number}") for number in missing],
            )  # fmt: skip
            for lines in client.gather(bands):
                notes += [f"{file.path}: {line}" for line in lines]
        with _busy:
            row = slide_work.finish(work, file, plane, parts, notes.append)
        return Outcome(row=row, notes=list(dict.fromkeys(notes)))
    except Exception as error:
        return Outcome(error=_reason(error, file.path), full=is_full_disk(error), notes=notes)


def _band(number: int, file: ImageFile, recipe: Recipe) -> list[str]:
    work = _work(recipe)
    plane = work.plane(file)
    with _busy:
        return slide_work.band(work, file, plane, number)


def _one(work: Work, file: ImageFile, resume: bool) -> Outcome:
    notes: list[str] = []
    try:
        if resume and work.results.done(file):
            return Outcome(passed=True)
        return Outcome(row=work.one(file, notes.append), notes=notes)
    except Exception as error:
        return Outcome(error=reason(error, file.path), full=is_full_disk(error), notes=notes)
