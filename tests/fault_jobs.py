"""The jobs that tests/faults.py disturbs: what each does, and what its result is."""

import contextlib
import hashlib
import http.server
import io
import json
import random
import threading
import time
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
TIMES = ("seconds", "images_per_s", "waiting")
IMAGES = 6


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


def hidden(path):
    return any(part.startswith(".") for part in path.parts) or path.suffix == ".lock"


class Job:
    """A job that can be repeated after a fault: ``run`` works in ``folder``, ``result`` is what must not differ."""

    name = command = ""

    def __init__(self, inputs):
        self.inputs = inputs

    def run(self, folder):
        raise NotImplementedError

    def result(self, folder):
        """{relative path: bytes} of every file, except locks and files that a killed process left behind."""
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
        found.pop("run/log.csv")  # the same rows, with times
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
        before = (
            done.exit_code == 130 and not done.output
        )  # typer's, before the command has its handler
        if done.exit_code == 143 or before:
            raise KeyboardInterrupt  # a clean end after SIGTERM
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
    """From a local server that drops and stalls connections, and sends wrong lengths and wrong bytes."""

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
        for _ in range(200):  # the user runs it again
            try:
                download.download_bbbc038(
                    folder, files, base_url=url, checksums=sums, progress=False
                )
                return
            except UserError as error:
                if "\n" in str(error):
                    raise
        raise RuntimeError("two hundred tries were not enough")


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
