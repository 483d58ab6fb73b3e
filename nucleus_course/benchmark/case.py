"""One case of the benchmark, in its own process: ``python -m nucleus_course.benchmark.case '{"kind": …}'``.

Prints its numbers as one line of JSON: ``ms`` (median of warm runs), ``cpu_ms`` (CPU time of all threads),
``first_ms`` (with tracing and compiling), ``peak_mb``, ``note``.
"""

import json
import sys
import time

import numpy as np

from nucleus_course._util.memory import keep_freed, peak_gib
from nucleus_course.benchmark import large

DAMPED = ("rpn_class_raw", "rpn_bbox_pred", "mrcnn_class_logits", "mrcnn_bbox_fc", "bn_conv1")
WARM_SECONDS, MOST_RUNS, FEWEST_RUNS = 5.0, 15, 3


def measure(function):
    """Medians of a function's warm runs, and its first: {"first_ms", "ms", "cpu_ms", "runs"}."""
    start = time.perf_counter()
    function()
    first = time.perf_counter() - start
    function()  # warms allocators and caches
    wall, cpu, begin = [], [], time.perf_counter()
    while len(wall) < FEWEST_RUNS or (
        len(wall) < MOST_RUNS and time.perf_counter() - begin < WARM_SECONDS
    ):
        start, start_cpu = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return {
        "first_ms": round(1000 * first, 1), "ms": round(1000 * float(np.median(wall)), 2),
        "cpu_ms": round(1000 * float(np.median(cpu)), 2), "runs": len(wall),
    }  # fmt: skip


def peak_mb():
    """Peak memory of this process, MB."""
    return round(1024 * peak_gib(), 1)


def set_threads(threads):
    """Limit the backend's CPU threads, before it runs anything."""
    import keras

    if not threads:
        return
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    elif keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(threads)


def fixed_candidates(count, places, height, width):
    """Candidates of which the final NMS keeps exactly ``count``: that many cells of a grid, each repeated.

    Random weights find anything between no nucleus and hundreds. So these replace the output of the box head, and
    NMS, mask head and pasting have the work of ``count`` nuclei.

    Returns:
        boxes (1, P, 4) float32 inside height x width, scores (1, P) falling, with P = max(places, count).
    """
    across = int(np.ceil(np.sqrt(count)))
    cells = np.stack(np.divmod(np.arange(count), across), axis=1)
    step = np.array([height, width]) / across
    low = cells * step + 0.1 * step
    side = np.minimum(0.8 * step, 48.0)
    boxes = np.concatenate([low, low + side], axis=1).astype("float32")
    boxes = np.resize(boxes, (max(places, count), 4))  # repeats them
    return boxes[None], np.linspace(0.99, 0.5, len(boxes), dtype="float32")[None]


def damp_random_weights(model):
    """Scale random weights so that activations stay near one: with an untrained BatchNorm each block doubles them.

    Masks are filled, because an empty mask is no detection.
    """
    from nucleus_course.models.layers import weighted_layers

    last = "branch2b" if model.config.backbone == "thin" else "branch2c"
    for layer in weighted_layers(model):
        if layer.name.startswith("bn") and layer.name.endswith(last):
            layer.gamma.assign(np.full(layer.gamma.shape, 0.1, "float32"))
        if layer.name in DAMPED:
            scaled = layer.gamma if layer.name == "bn_conv1" else layer.kernel
            scaled.assign(0.01 * np.asarray(scaled))
        if layer.name == "mrcnn_mask":
            layer.kernel.assign(0.01 * np.asarray(layer.kernel))
            layer.bias.assign(np.ones(layer.bias.shape, "float32"))
    return model


def predict(preset, runtime, side, detections, threads=None):
    """From image to label image with a fixed number of detections."""
    if runtime in ("torchvision", "stardist"):
        from nucleus_course.benchmark import peers

        return peers.PEERS[runtime](side, detections, threads)
    set_threads(threads)
    import nucleus_course as nc
    from nucleus_course.benchmark.operations import count_operations
    from nucleus_course.prediction.pipeline import assemble, prepare, select

    name, _, precision = runtime.partition(" ")
    policy = "mixed_bfloat16" if runtime == "keras bfloat16" else "float32"
    model = nc.create(preset, dtype_policy=policy)
    damp_random_weights(model.network)
    options = {"precision": precision or "auto", "threads": threads} if name == "openvino" else {}
    model.use_engine(name, **options)
    config, thresholds = model.config, model.thresholds
    pixels = int(side / config.upsample)
    image = np.random.default_rng(0).integers(0, 255, (pixels, pixels, 3), "uint8")
    found = []

    def run():
        prepared = prepare(image, config)
        pyramid, boxes, _ = model.engine.candidates(prepared)
        boxes, scores = fixed_candidates(detections, boxes.shape[1], *prepared.window)
        boxes, scores = select(boxes, scores, thresholds.nms_iou, detections)
        masks = model.engine.masks(pyramid, boxes, prepared)
        result = assemble(config, prepared.shape, boxes, scores, masks, thresholds)
        result.label_image(score_threshold=0.0)
        found.append(len(result))

    numbers = measure(run)
    if set(found) != {detections}:
        raise RuntimeError(f"{set(found)} detections instead of {detections}")
    precision = getattr(model.engine, "precision", policy.removeprefix("mixed_"))
    counted = count_operations(model.network, *prepare(image, config).input.shape[1:3], detections)
    gmac = counted["total"] / 1e9
    return numbers | {"precision": precision, "gmac": round(gmac, 2), "note": f"{gmac:.1f} GMAC"}


def startup(preset, threads=None):
    """From the start of the process to the first result, including imports and tracing."""
    import psutil

    set_threads(threads)
    import nucleus_course as nc

    nc.MaskRCNN  # noqa: B018
    imported = time.time()
    model = nc.create(preset)
    model.predict(np.zeros((256, 256, 3), "uint8"))
    start = psutil.Process().create_time()
    note = f"{imported - start:.1f} s of it imports"
    return {"ms": round(1000 * (time.time() - start), 1), "note": note}


def train(preset, steps, data, batch=None, threads=None):
    """A training step through fit, on all layers, without the first epoch, which compiles."""
    import dataclasses

    set_threads(threads)
    keep_freed()
    from nucleus_course.data import load_dataset
    from nucleus_course.data.batches import TrainingBatches
    from nucleus_course.models import MaskRCNNNetwork
    from nucleus_course.presets import get_preset
    from nucleus_course.training.progress import EpochWatch, Reporter
    from nucleus_course.training.stages import compile_for

    preset = get_preset(preset)
    size = batch or preset.training.batch_size
    training = dataclasses.replace(preset.training, batch_size=size, steps_per_epoch=steps + 1)
    preset = dataclasses.replace(preset, training=training)
    model = MaskRCNNNetwork(preset.model, dtype_policy=training.dtype)
    batches = TrainingBatches(load_dataset(data, progress=False), preset)
    compile_for(model, training, "all")
    model.fit(batches, epochs=1, steps_per_epoch=2, verbose=0)
    watch = EpochWatch(batches, Reporter(False, 1, steps))
    cpu = time.process_time()
    model.fit(batches, epochs=1, verbose=0, callbacks=[watch])
    cpu = time.process_time() - cpu
    speed = watch.summary(size)
    return {
        "ms": round(1000 * size / speed["images_per_s"], 1), "cpu_ms": round(1000 * cpu / (steps + 1), 1), **speed,
        "note": f"{speed['images_per_s']} images/s, batch {size} of {training.crop}x{training.crop}, "
        f"{training.dtype}, {100 * speed['waiting']:.0f}% waiting",
    }  # fmt: skip


def input_(preset, batches, data, threads=None):
    """Augmented training batches alone, with the preset's number of threads."""
    from concurrent.futures import ThreadPoolExecutor

    from nucleus_course.data import load_dataset
    from nucleus_course.data.batches import TrainingBatches
    from nucleus_course.presets import get_preset

    preset = get_preset(preset)
    source = TrainingBatches(load_dataset(data, progress=False), preset)
    workers = threads or preset.training.workers
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(source.__getitem__, range(workers)))
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in pool.map(lambda i: source[i % len(source)], range(batches)):
            pass
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    images = batches * source.batch_size
    crop = preset.training.crop
    return {
        "ms": round(1000 * wall / images, 2), "cpu_ms": round(1000 * cpu / images, 2), "images_per_s": round(images / wall, 1),
        "note": f"{images / wall:.1f} images/s of {crop}x{crop}, augmented, {workers} threads",
    }  # fmt: skip


def decode(data, threads=None):
    """Opening a data set for the first time, and again, until every pixel is in memory."""
    import tempfile

    from nucleus_course.data import load_dataset

    with tempfile.TemporaryDirectory() as folder:
        times, cpu = [], time.process_time()
        for _ in range(2):
            start = time.perf_counter()
            dataset = load_dataset(data, cache_dir=folder, progress=False, workers=threads)
            dataset.preload(workers=threads)
            times.append(time.perf_counter() - start)
        cpu = time.process_time() - cpu
    nuclei = sum(dataset.counts.values())
    return {
        "ms": round(1000 * times[0], 1), "reopened_ms": round(1000 * times[1], 1), "cpu_ms": round(1000 * cpu, 1),
        "note": f"{len(dataset)} images, {nuclei} nuclei; reopened in {1000 * times[1]:.0f} ms",
    }  # fmt: skip


def evaluate(images, detections, threads=None):
    """Every metric of the protocol on a made-up split."""
    from nucleus_course.benchmark.scoring import benchmark_evaluate

    numbers = benchmark_evaluate(images=images, detections=detections)
    note = f"{numbers['images']} images, {numbers['detections']} detections, {numbers['nuclei']} nuclei"
    return {"ms": round(1000 * numbers["seconds"], 1), "note": note}


def machine(threads=None):
    """The speed of the backend's float32 matrix product and of NumPy's copy: upper limits for all operations."""
    set_threads(threads)
    import keras

    a = np.random.default_rng(0).normal(size=(2048, 2048)).astype("float32")
    a = keras.ops.convert_to_tensor(a)
    big = np.zeros(2**27, "uint8")
    product = measure(lambda: keras.ops.convert_to_numpy(keras.ops.matmul(a, a)))
    copy = measure(lambda: big.copy())
    gmac = 2048**3 / 1e6 / product["ms"]
    gbytes = 2 * big.nbytes / 1e6 / copy["ms"]
    return product | {"gmac_per_s": round(gmac, 1), "gb_per_s": round(gbytes, 1),
                      "note": f"a float32 product of 2048: {gmac:.0f} GMAC/s; a copy: {gbytes:.1f} GB/s"}  # fmt: skip


CASES = {
    "predict": predict, "startup": startup, "train": train, "input": input_, "decode": decode,
    "evaluate": evaluate, "machine": machine, "slide": large.slide, "tasks": large.tasks,
}  # fmt: skip


def main(text):
    """Run the case that ``text`` (JSON) describes and print its numbers."""
    case = json.loads(text)
    numbers = CASES[case.pop("kind")](**case)
    print(json.dumps({**numbers, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main(sys.argv[1])
