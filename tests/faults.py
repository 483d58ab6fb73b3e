"""Fault injection: kill -9 at random moments, a full disk at every write, SIGTERM, two processes, clocks going back.

    python tests/faults.py --rounds 100
    python tests/faults.py --rounds 20 --only train,download --seed 3

Each job runs in a process of its own, is disturbed, and is then repeated as a user would repeat it. What is there
must be whole at every moment, and in the end byte for byte what an undisturbed run leaves. A table says what was
tried. Needs os.fork (Linux, macOS).
"""

import argparse
import contextlib
import errno
import hashlib
import http.server
import importlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
TIMES = ("seconds", "images_per_s", "waiting")
IMAGES = 6
IMPORTS = (
    "training.toy", "cli.stub", "evaluation.test_rescoring", "nucleus_course.training.loop",
    "nucleus_course.cli.app", "nucleus_course.evaluation.thresholds", "nucleus_course.data.download",
    "nucleus_course.prediction.results", "nucleus_course.prediction.measurements", "pooch", "requests",
    "skimage.measure", "tifffile", "imagecodecs", "PIL.Image", "PIL.PngImagePlugin", "cv2", "scipy.ndimage",
    "scipy.optimize", "pycocotools.mask", "h5py", "filelock", "imgaug.augmenters", "rich.progress",
    "typer.testing", "tensorflow",
)  # fmt: skip
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ------------------------------------------------------------------------------ the jobs


def make_inputs(folder):
    """A data set in BBBC038's layout, a folder of pictures, a model folder to choose thresholds for, an archive."""
    from PIL import Image
    from tiny import discs

    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        labels, image = discs(80, 88, 5, rng)
        place = folder / "data" / f"image{number}"
        (place / "images").mkdir(parents=True), (place / "masks").mkdir()
        Image.fromarray(image).save(place / "images" / f"{place.name}.png")
        for label in range(1, labels.max() + 1):
            Image.fromarray(np.uint8(labels == label) * 255).save(place / "masks" / f"{label}.png")
        (folder / "pictures").mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / "pictures" / f"{place.name}.png")
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("a/images/a.png", rng.bytes(3_000_000))
    (folder / "archive.zip").write_bytes(body.getvalue())


class Job:
    """A job that can be repeated after a fault. ``run`` works in ``folder``; ``result`` is what counts in it."""

    name = command = ""

    def __init__(self, inputs):
        self.inputs = inputs

    def run(self, folder):
        raise NotImplementedError

    def result(self, folder):
        """{relative path: bytes} of every file but locks and what a killed process could not remove."""
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not hidden(path.relative_to(folder))
        }


class Train(Job):
    name = "train"

    def run(self, folder):
        from training.toy import Toy, dataset, preset

        from nucleus_course.training import train

        train(
            Toy(), dataset(), preset=preset(), run=folder / "run", resume=True, validation=None,
            progress=False,
        )  # fmt: skip

    def result(self, folder):
        found = super().result(folder)
        rows = [json.loads(line) for line in found.pop("run/log.jsonl").splitlines()]
        found["log"] = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
        found.pop("run/log.csv")  # the same rows with their times
        with np.load(io.BytesIO(found.pop("run/checkpoint.npz"))) as archive:
            found["checkpoint"] = {k: archive[k].tobytes() for k in archive.files if k != "meta"}
        return found


class Predict(Job):
    name = "predict"

    def run(self, folder):
        from cli.stub import install
        from typer.testing import CliRunner

        from nucleus_course.cli.app import app

        install()
        words = ["predict", self.inputs / "pictures", "--out", folder / "out", "--resume"]
        words += ["--overlay", "--export", "geojson"]
        done = CliRunner().invoke(app, [str(word) for word in words])
        if done.exit_code:
            raise RuntimeError(f"exit code {done.exit_code}: {done.output[-300:]}")


class Cache(Job):
    name = "the data cache"

    def run(self, folder):
        from nucleus_course.data import load_dataset

        found = load_dataset(self.inputs / "data", cache_dir=folder / "cache", progress=False)
        digest = hashlib.sha256()
        for record in found:
            digest.update(record.image.tobytes() + record.labels.tobytes())
        from nucleus_course._util.files import write_file

        write_file(folder / "pixels", digest.hexdigest())


class Rescore(Job):
    name = "rescore"

    def run(self, folder):
        from evaluation.test_rescoring import made_up

        from nucleus_course.evaluation.rescoring import fit_rescorer

        (folder / "model").mkdir(exist_ok=True)
        found = fit_rescorer(made_up(), networks=2, epochs=3, seed=4, progress=False)
        found.save(folder / "model")


class Thresholds(Job):
    name = "thresholds"

    def run(self, folder):
        from tiny import disc_dataset

        from nucleus_course.config import Thresholds
        from nucleus_course.evaluation.thresholds import choose_thresholds
        from nucleus_course.prediction.interchange import Predictions

        data = disc_dataset(images=3)
        found = Predictions.from_label_images({r.id: r.labels for r in data})
        (folder / "model").mkdir(exist_ok=True)
        choose_thresholds(
            data, metric="dsb_score", predict=lambda *pair: found, start=Thresholds()
        ).save(folder / "model")


class Weights(Job):
    name = "weights and their SHA-256"

    def run(self, folder):
        from nucleus_course.models.weights.shards import check_sums, weight_files, write_weights

        arrays = {f"layer{i}/kernel": np.full((200, 300), i, "float32") for i in range(6)}
        write_weights(folder, arrays, max_mb=0.5)
        check_sums(weight_files(folder))


class Download(Job):
    """From a server on this machine that cuts, stalls, lies about the length and sends other bytes."""

    name = "download"

    def __init__(self, inputs):
        super().__init__(inputs)
        self.body = (inputs / "archive.zip").read_bytes()
        self.checksum = hashlib.sha256(self.body).hexdigest()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.body, self.server.random = self.body, random.Random(1)
        self.server.tried = {}
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def run(self, folder):
        from nucleus_course._util.errors import UserError
        from nucleus_course.data import download

        download.TIMEOUT = (2, 0.3)
        url, files = f"http://127.0.0.1:{self.server.server_address[1]}", ["stage1_train.zip"]
        sums = {files[0]: self.checksum}
        for _ in range(40):  # a user who runs it again
            try:
                download.download_bbbc038(
                    folder, files, base_url=url, checksums=sums, progress=False
                )
                return
            except UserError as error:
                if "\n" in str(error):
                    raise
        raise RuntimeError("forty tries were not enough")


class Handler(http.server.BaseHTTPRequestHandler):
    FAULTS = ("none", "cut", "stall", "longer", "shorter", "other bytes", "no ranges", "error 503")

    def do_GET(self):
        server = self.server
        fault = server.random.choice(self.FAULTS)
        server.tried[fault] = server.tried.get(fault, 0) + 1
        body, start, wanted = server.body, 0, self.headers.get("Range")
        if fault == "error 503":
            self.send_error(503)
            return
        if wanted and fault != "no ranges":
            start = min(int(wanted.removeprefix("bytes=").rstrip("-")), len(body))
        if fault == "other bytes":
            body = body[: len(body) // 2] + bytes(len(body) - len(body) // 2)
        part = body[start:]
        self.send_response(206 if start else 200)
        length = len(part) + {"longer": 1000, "shorter": -1000}.get(fault, 0)
        self.send_header("Content-Length", str(max(0, length)))
        self.send_header("ETag", '"one"')
        self.end_headers()
        with contextlib.suppress(OSError):
            if fault in ("cut", "stall"):
                self.wfile.write(part[: server.random.randrange(len(part) + 1)])
                self.wfile.flush()
                time.sleep(0.5 if fault == "stall" else 0)
            else:
                self.wfile.write(part)
        self.close_connection = True

    def log_message(self, *args):
        pass


JOBS = (Train, Predict, Cache, Rescore, Thresholds, Weights, Download)


# ------------------------------------------------------------------------------ the faults


def hidden(path):
    return any(part.startswith(".") for part in path.parts) or path.suffix == ".lock"


def start(work, *arguments):
    """A child process that does ``work`` and ends with 0, 1 on an error, or 143 on SIGTERM; its number."""
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
    """Names of files that are there and are not whole."""
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
    """Do the job and leave the number of its writing steps in a file beside the folder."""
    with disk_full_at(0, True) as disk:
        job.run(folder)
        folder.with_suffix(".steps").write_text(str(disk.count))


def with_clock(job, folder, seconds):
    """The job while the clock says another time than it did."""
    real = time.time
    time.time = lambda: real() + seconds
    job.run(folder)


class Trial:
    """One job and its undisturbed result; counts what was tried and what was lost."""

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
        """After a fault: nothing half; then the job again, and everything as if nothing had happened."""
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
        # A training and a download keep the other process out, in one line.
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
    """Disturb each job: {job: {fault: times}} and the list of what was lost."""
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
                    trial.kill(signal.SIGTERM, "SIGTERM", (0, 143))
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
