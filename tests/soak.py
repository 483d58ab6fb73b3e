"""Soak and determinism: memory and time over many predictions and epochs, and differences between thread counts.

    python tests/soak.py --predictions 2000 --epochs 200
    python tests/soak.py --predictions 300 --sizes 60 --epochs 0
    python tests/soak.py --threads 1,2,4

Prints slopes of the resident memory and of the time, fitted to the second half.
"""

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
SIDES = ((64, 64), (200, 150), (96, 160), (256, 256), (333, 111), (128, 300))


def slopes(name, memory, seconds):
    """One line about two series with an entry per step: MB, and seconds (relative to the median of their kind)."""
    half = len(memory) // 2
    steps = np.arange(len(memory))[half:]
    grown = np.polyfit(steps, memory[half:], 1)[0] * 1000
    slower = np.polyfit(steps, seconds[half:], 1)[0] * 1000
    print(
        f"{name}: memory {memory[half]:.0f} MB half way, {memory[-1]:.0f} MB at the end, slope {grown:+.2f} MB in 1,000; "
        f"time {100 * slower:+.1f}% in 1,000"
    )
    return grown, slower


def relative(seconds, kinds):
    """Each step's time over the median of its kind."""
    seconds, kinds = np.array(seconds), np.array(kinds)
    return seconds / np.array([np.median(seconds[kinds == kind]) for kind in kinds])


def sides(count):
    """``count`` image sizes: six by hand, then random ones."""
    more = np.random.default_rng(1).integers(64, 400, (max(0, count - len(SIDES)), 2)).tolist()
    return (*SIDES, *map(tuple, more))[:count]


def soak_predictions(count, sizes):
    import psutil
    from tiny import discs, lively_model

    model, rng, process = lively_model(), np.random.default_rng(0), psutil.Process()
    memory, seconds, kinds = [], [], []
    for number in range(count):
        kind = number % sizes
        image = discs(*sides(sizes)[kind], 8, rng)[1]
        begin = time.perf_counter()
        model.predict(image).rles()
        seconds.append(time.perf_counter() - begin)
        memory.append(process.memory_info().rss / 1e6)
        kinds.append(kind)
    return slopes(f"{count} predictions of {sizes} sizes", memory, relative(seconds, kinds))


def soak_training(epochs):
    import psutil
    from training.toy import STAGES, Toy, dataset, preset

    from nucleus_course.training import train

    process, memory, begins = psutil.Process(), [], [time.perf_counter()]

    def watch(row):
        memory.append(process.memory_info().rss / 1e6)
        begins.append(time.perf_counter())

    train(
        Toy(), dataset(), preset=preset(stages=STAGES[1:]), epochs=epochs, on_epoch=watch, progress=False
    )  # fmt: skip
    seconds = np.diff(begins)
    return slopes(f"{epochs} epochs", memory, seconds / np.median(seconds))


def save_findings(path):
    """Write to one file what compact finds on the embedded sample: nuclei, scores, foreground, and a digest of all."""
    import nucleus_course as nc

    model, digest, nuclei, scores, pixels = (
        nc.MaskRCNN.load("compact"),
        hashlib.sha256(),
        [],
        [],
        [],
    )
    for record in nc.load_dataset("sample", progress=False):
        found = model.predict(record.image)
        labels, _ = found.labels_and_scores(model.thresholds.score)
        digest.update(labels.tobytes() + found.scores.tobytes() + found.boxes.tobytes())
        nuclei.append(int(labels.max()))
        scores.append(float(found.scores.sum()))
        pixels.append((labels > 0).ravel())
    np.savez(
        path, digest=digest.hexdigest(), nuclei=nuclei, scores=scores, pixels=np.concatenate(pixels)
    )


def compare_threads(counts):
    """Predict with each number of threads (the first one twice), each in its own process, and print what differs."""
    import subprocess
    import tempfile

    first = None
    for count in (counts[0], *counts):
        with tempfile.TemporaryDirectory() as folder:
            code = "import sys; sys.path.insert(0, sys.argv[1]); import soak; soak.save_findings(sys.argv[2])"
            threads = {"TF_NUM_INTRAOP_THREADS": str(count), "OMP_NUM_THREADS": str(count)}
            words = [sys.executable, "-c", code, str(HERE), f"{folder}/found.npz"]
            subprocess.run(
                words, check=True, env=os.environ | threads | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            )
            with np.load(f"{folder}/found.npz") as archive:
                found = {name: archive[name] for name in archive.files}
        if first is None:
            first = found
            continue
        same = "the same bytes" if found["digest"] == first["digest"] else "other bytes"
        nuclei = found["nuclei"] - first["nuclei"]
        print(
            f"{count} threads against {counts[0]}: {same}; {np.count_nonzero(found['pixels'] != first['pixels'])} of "
            f"{found['pixels'].size} pixels change sides, nuclei {nuclei.min():+d} to {nuclei.max():+d} an image, "
            f"sum of an image's scores by {np.abs(found['scores'] - first['scores']).max():.1e} at most",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--predictions", type=int, default=0)
    parser.add_argument("--sizes", type=int, default=len(SIDES), help="of the images, in turn")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--threads", help="numbers of threads to compare, with commas")
    asked = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if asked.predictions:
        soak_predictions(asked.predictions, asked.sizes)
    if asked.epochs:
        soak_training(asked.epochs)
    if asked.threads:
        compare_threads([int(n) for n in asked.threads.split(",")])


if __name__ == "__main__":
    main()
