"""Fault injection: kill -9 at random moments, a full disk at every write, SIGTERM, two processes, clocks going back.

    python tests/faults.py --rounds 100
    python tests/faults.py --rounds 20 --only train,download --seed 3

Each job runs in its own process, is disturbed, and is then repeated as a user would. Its files must be complete at
every moment, and in the end equal, byte for byte, to those of an undisturbed run. A table shows what was tried.
Needs os.fork (Linux, macOS).
"""

import argparse
import contextlib
import errno
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from fault_jobs import JOBS, Download, hidden, make_inputs  # noqa: E402

IMPORTS = (
    "training.toy", "cli.stub", "evaluation.test_rescoring", "nucleus_course.training.loop",
    "nucleus_course.cli.app", "nucleus_course.evaluation.thresholds", "nucleus_course.data.download",
    "nucleus_course.prediction.results", "nucleus_course.prediction.measurements", "pooch", "requests",
    "skimage.measure", "tifffile", "imagecodecs", "PIL.Image", "PIL.PngImagePlugin", "cv2", "scipy.ndimage",
    "scipy.optimize", "pycocotools.mask", "h5py", "filelock", "imgaug.augmenters", "rich.progress",
    "typer.testing", "tensorflow",
)  # fmt: skip
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ------------------------------------------------------------------------------ the faults


def start(work, *arguments):
    """Fork a process that does ``work`` and exits with 0, 1 on an error, or 143 on SIGTERM; its process id."""
    sys.stdout.flush(), sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        from nucleus_course.cli.common import ending_well

        with ending_well() as state, open(os.devnull, "w") as nothing:
            with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
                work(*arguments)
            code = 143 if state["terminated"] else 0
    except KeyboardInterrupt:
        code = 143
    except BaseException as error:
        if os.environ.get("FAULTS_DEBUG"):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def wait(child):
    """The exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def halves(folder):
    """Names of incomplete files."""
    import h5py
    import tifffile
    from PIL import Image

    found = []
    for path in folder.rglob("*"):
        if not path.is_file() or hidden(path.relative_to(folder)) or ".partial" in path.name:
            continue
        try:
            if path.suffix in (".json", ".geojson"):
                json.loads(path.read_bytes())
            elif path.suffix in (".jsonl", ".csv"):
                assert path.read_text().endswith("\n")
            elif path.suffix == ".npz":
                with np.load(path) as archive:
                    assert [archive[name] for name in archive.files]
            elif path.suffix == ".zip":
                assert zipfile.ZipFile(path).testzip() is None
            elif path.suffix == ".tif":
                tifffile.imread(path)
            elif path.suffix == ".png":
                Image.open(path).load()
            elif path.suffix == ".h5":
                with h5py.File(path) as file:
                    file.visititems(lambda _, item: item[()] if hasattr(item, "shape") else None)
            else:
                assert path.stat().st_size
        except Exception as error:
            found.append(f"{path.name} ({error})")
    return found


@contextlib.contextmanager
def disk_full_at(number, once):
    """The ``number``-th step of writing a file (create, flush, rename) and, unless ``once``, all later ones fail."""
    from nucleus_course._util import files

    class Disk:
        count = 0

        def __getattr__(self, name):
            return getattr(os, name)

        def step(self, name, *arguments):
            type(self).count += 1
            if number and (self.count == number or (self.count > number and not once)):
                raise FULL
            return getattr(os, name)(*arguments)

        def open(self, *arguments):
            return self.step("open", *arguments)

        def fsync(self, *arguments):
            return self.step("fsync", *arguments)

        def replace(self, *arguments):
            return self.step("replace", *arguments)

    before, files.os = files.os, Disk()
    try:
        yield Disk
    finally:
        files.os = before


def on_full_disk(job, folder, number, once):
    with disk_full_at(number, once):
        job.run(folder)


def counting(job, folder):
    """Do the job and write the number of its writing steps to a file beside the folder."""
    with disk_full_at(0, True) as disk:
        job.run(folder)
        folder.with_suffix(".steps").write_text(str(disk.count))


def with_clock(job, folder, seconds):
    """The job with a wrong clock."""
    real = time.time
    time.time = lambda: real() + seconds
    job.run(folder)


class Trial:
    """One job and its undisturbed result; counts the faults tried, and lists what was lost."""

    def __init__(self, job, folder, chance):
        self.job, self.folder, self.chance = job, folder, chance
        self.rows, self.number, self.lost = {}, 0, []
        begin = time.perf_counter()
        place = self.place()
        if wait(start(counting, job, place)):
            raise SystemExit(f"{job.name}: the undisturbed run fails; FAULTS_DEBUG=1 says why")
        self.seconds = time.perf_counter() - begin
        self.steps = int(place.with_suffix(".steps").read_text())
        self.expected = job.result(place)

    def place(self):
        self.number += 1
        path = self.folder / f"{type(self.job).__name__.lower()}{self.number}"
        path.mkdir()
        return path

    def check(self, fault, place, code=None, allowed=()):
        """After a fault no file may be incomplete; then the job again, and its result must be the undisturbed one."""
        self.rows[fault] = self.rows.get(fault, 0) + 1
        wrong = [f"half: {name}" for name in halves(place)]
        if code is not None and code not in allowed:
            wrong.append(f"exit code {code}")
        again = wait(start(self.job.run, place))
        if again:
            wrong.append(f"the repetition ends with {again}")
        else:
            found = self.job.result(place)
            wrong += [f"other: {n}" for n in self.expected if found.get(n) != self.expected[n]]
            wrong += [f"more: {n}" for n in found if n not in self.expected]
        self.lost += [f"{self.job.name}, {fault}: {text}" for text in wrong]
        shutil.rmtree(place)

    def kill(self, number, fault, allowed):
        place = self.place()
        child = start(self.job.run, place)
        time.sleep(self.chance.uniform(0, 1.1 * self.seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
        self.check(fault, place, wait(child), allowed)

    def full(self, number, once):
        place = self.place()
        code = wait(start(on_full_disk, self.job, place, number, once))
        self.check("disk full " + ("once" if once else "from then on"), place, code, (0, 1))

    def two(self):
        place = self.place()
        children = [start(self.job.run, place) for _ in range(2)]
        codes = [wait(child) for child in children]
        # A training and a download refuse a second process with one line.
        self.check("two processes", place, max(codes), (0, 1))
        if min(codes):
            self.lost.append(f"{self.job.name}, two processes: both failed")

    def clock(self):
        place = self.place()
        child = start(with_clock, self.job, place, 86400.0)
        time.sleep(self.chance.uniform(0, 1.1 * self.seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        for path in place.rglob("*"):
            with contextlib.suppress(OSError):
                os.utime(path, (time.time() + 86400,) * 2)
        self.check("kill -9, then the clock goes back a day", place, wait(child), (0, -9))


def run(rounds, only=None, seed=0, seconds=float("inf"), say=print):
    """Disturb each job; ({job: {fault: times}}, list of what was lost)."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for name in IMPORTS:  # once, before the forks
        importlib.import_module(name)
    begin, chance, table, lost = time.perf_counter(), random.Random(seed), {}, []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_inputs(folder)
        os.environ["NUCLEUS_COURSE_CACHE"] = str(folder / "unused")
        trials = [
            Trial(kind(folder), folder, chance)
            for kind in JOBS
            if only is None or kind.__name__.lower() in only
        ]
        for number in range(rounds):
            for trial in trials:
                if time.perf_counter() - begin > seconds:
                    break
                trial.kill(signal.SIGKILL, "kill -9", (0, -9))
                if number % 4 == 0:
                    trial.kill(signal.SIGTERM, "SIGTERM", (0, 143, -15))  # -15: before its handler
                if number % 8 == 1:
                    trial.two()
                if number % 8 == 2:
                    trial.clock()
                if trial.steps:
                    trial.full(1 + number * 5 % trial.steps, number % 2 == 0)
            for trial in trials:
                lost += trial.lost
                trial.lost = []
        for trial in trials:
            table[trial.job.name] = trial.rows | {"writing steps": trial.steps}
            if isinstance(trial.job, Download):
                tried = dict(sorted(trial.job.server.tried.items()))
                table["the server's answers"] = tried
    for name, rows in table.items():
        say(f"{name}: " + ", ".join(f"{fault} {times}" for fault, times in rows.items()))
    for text in lost:
        say(f"LOST {text}")
    say(f"lost: {len(lost)}; {time.perf_counter() - begin:.0f} s, seed {seed}")
    return table, lost


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="kills of each job")
    parser.add_argument(
        "--only", help="jobs, with commas: train,predict,cache,rescore,thresholds,weights,download"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="no new round after that"
    )
    asked = parser.parse_args()
    only = asked.only and set(asked.only.split(","))
    raise SystemExit(bool(run(asked.rounds, only, asked.seed, asked.seconds)[1]))


if __name__ == "__main__":
    main()
