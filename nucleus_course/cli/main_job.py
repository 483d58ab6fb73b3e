"""`demo`, `doctor` and `benchmark`: does it run here, what is missing, and how fast is it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucleus_course._util.memory import keep_freed
from nucleus_course.backend import load_backend, use_backend
from nucleus_course.cli import common


@common.friendly
def demo(
    out: Path = Path("demo-output"),
    epochs: Annotated[int, typer.Option(min=1)] = 15,
    backend: str | None = None,
) -> None:
    """Run the main job once, offline, on the embedded synthetic images: about five minutes on two cores.

    Shows the data, trains the compact network briefly, loads the shipped weights (without them it uses those
    just trained, and says so), detects the nuclei, scores them and draws the results.

    \b
    Example: nucleus-course demo --out demo-output

    \b
    Writes to DIR
      figures/*.png      the data, detections beside truth, learning curve
      report.json        every metric: overall, by image and by image type
      predictions.json   every detection with its score
      labels/<id>.tif    one label image for each image
      run/               the training: log, checkpoint, weights

    Args:
        out (DIR): The folder for all results.
        epochs (N): How long to train, in epochs of ten steps.
    """
    keep_freed()
    load_backend(backend)
    from nucleus_course.reports.demo import run_demo

    run_demo(common.output_folder(out), epochs=epochs)


@common.friendly
def doctor(
    data: str | None = None,
    annotations: str = "auto",
    reading: common.Reading = None,
    backend: str | None = None,
) -> None:
    """Check this machine, or a data set, and say what to do about what is missing or wrong.

    \b
    Examples
      nucleus-course doctor
      nucleus-course doctor --data my-annotations/

    Without --data: versions, backend and device, cores, memory and disk, data and weights found.
    With --data: every faulty file by name, and whether it was repaired or left out: unreadable files, and masks that have
    the wrong shape, are empty, overlap, occur twice, are in colour or have no image.
    Writes only the cache of the data set. Exit code 1 if something needed is missing or an image is refused.

    Args:
        data (DATA): Check these images and masks instead, file by file.
    """
    from nucleus_course.reports import doctor as room

    if data is None:
        if not room.report(room.diagnose(backend), common.out()):
            raise typer.Exit(1)
        return
    from nucleus_course.data import lint_dataset

    found = lint_dataset(data, progress=True, annotations=annotations, **reading)
    common.out().print(found.table() if found.issues else found.summary())
    if found.refused:
        raise typer.Exit(1)


@common.friendly
def benchmark(
    out: Path = Path("benchmark.json"),
    quick: bool = False,
    only: str | None = None,
    data: str = "sample",
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    backend: str | None = None,
) -> None:
    """Measure speed on this machine: prediction, training step, input, decoding, evaluation, memory.

    \b
    Examples
      nucleus-course benchmark --quick
      nucleus-course benchmark --only predict --out benchmark.json

    Each case runs in its own process. Times are medians of warm runs; torchvision and StarDist are measured too if they
    are installed. Prints the table and writes it as JSON, with the machine and the versions. Close other programs
    first: times from a busy machine mean nothing (the CPU time beside them means a little).

    Args:
        out (FILE): The file for the numbers.
        quick: Only a few small cases, about a minute.
        only (KINDS): Only these kinds, separated by commas: machine, predict, startup, train, input, decode, evaluate, slide, tasks.
        data (DATA): The images for input and decode.
        threads (N): CPU threads. Default: as many as there are cores.
    """
    use_backend(backend)
    from nucleus_course.benchmark import run_benchmark

    run_benchmark(out, quick=quick, only=only, data=data, threads=threads)
