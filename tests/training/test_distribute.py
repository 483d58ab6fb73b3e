"""Two virtual CPU devices against one: the same batches, the same losses, the same weights.

Each backend runs in its own process, because the number of devices is fixed at first use.
"""

import json

import pytest
from tiny import python

COMMON = """
import json, os, sys, tempfile
import numpy as np, keras
from tiny import disc_dataset, tiny_config, tiny_preset
from nucleus_course.config import StageConfig
from nucleus_course.data.batches import TrainingBatches
from nucleus_course.prediction.segmenter import build
from nucleus_course.training import train
from nucleus_course.training.distribute import data_parallel, device_names
from nucleus_course.training.stages import compile_for

def summary(network):
    return [float(np.abs(keras.ops.convert_to_numpy(v)).sum()) for v in network.trainable_variables]

def outcome(rows, network):
    losses = [[v for k, v in row.items() if k.endswith("loss")] for row in rows]
    return {"losses": losses, "weights": summary(network), "rows": rows}
"""

# The whole loop, on different images, with sampling and a trained BatchNorm; then the same in two runs.
JAX = (
    COMMON
    + """
preset = tiny_preset(steps_per_epoch=2, batch_size=4, stages=(StageConfig("all", epochs=2, rate=1e-3),), ema=0.9)

def run(count, folder=None, **options):
    keras.utils.set_random_seed(5)
    with data_parallel(count, preset.training.batch_size) as devices:
        model = build(preset.model, seed=5)
        history = train(model, disc_dataset(), preset=preset, run=folder, progress=False, **options)
        kernel = model.network.backbone.get_layer("conv1").kernel.value
        found = outcome(history.rows, model.network) | {"devices": devices, "held_by": len(kernel.sharding.device_set)}
    return found

folder = tempfile.mkdtemp()
run(2, folder, on_epoch=lambda row: True)
print(json.dumps({"names": device_names(), "one": run(1), "two": run(2, folder, resume=True)}))
"""
)

# Both devices see the same images, every anchor and RoI is taken, BatchNorm is frozen: then the average
# over devices is the average over the batch.
TENSORFLOW = (
    """
import tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
"""
    + COMMON
    + """
config = tiny_config(train_norm=False, rpn_anchors_per_image=4000, rois_per_image=200, mask_slots_per_image=0)
preset = tiny_preset(config, steps_per_epoch=3, batch_size=4, optimizer="sgd")
half = tiny_preset(config, steps_per_epoch=3, batch_size=2)

class Twice(TrainingBatches):
    def __getitem__(self, index):
        (batch,) = super().__getitem__(index)
        return ({k: np.concatenate([v, v]) for k, v in batch.items()},)

def run(count):
    keras.utils.set_random_seed(5)
    with data_parallel(count, preset.training.batch_size) as devices:
        network = build(preset.model, seed=5).network
        compile_for(network, preset.training, "all")
        rows = []
        for epoch in range(2):
            history = network.fit(Twice(disc_dataset(), half, epoch=epoch), shuffle=False, verbose=0).history
            rows.append({k: float(v[-1]) for k, v in history.items()})
        return outcome(rows, network) | {"devices": devices, "share": network.batch_size}

def loop():
    with data_parallel(2):
        model = build(preset.model, seed=5)
        return train(model, disc_dataset(), preset=preset, run=tempfile.mkdtemp(), progress=False).rows

print(json.dumps({"names": device_names(), "one": run(1), "two": run(2), "loop": loop()}))
"""
)


def ran(code, backend, **env):
    done = python(code, backend=backend, timeout=1200, **env)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def same(one, two, rtol):
    for a, b in zip(one["losses"], two["losses"], strict=True):
        assert a == pytest.approx(b, rel=rtol)
        assert min(a) > 0
    assert one["weights"] == pytest.approx(two["weights"], rel=rtol)


@pytest.mark.slow
def test_jax_data_parallel_is_as_one_device():
    found = ran(JAX, "jax", XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert found["names"] == ["cpu:0", "cpu:1"] == found["two"]["devices"]
    assert (found["one"]["held_by"], found["two"]["held_by"]) == (1, 2)
    same(found["one"], found["two"], rtol=1e-3)
    assert [row["epoch"] for row in found["two"]["rows"]] == [1, 2]


@pytest.mark.slow
def test_tensorflow_mirrored_strategy_is_as_one_device():
    found = ran(TENSORFLOW, "tensorflow")
    assert found["names"] == ["cpu:0", "cpu:1"] == found["two"]["devices"]
    assert (found["one"]["share"], found["two"]["share"]) == (4, 2)
    same(found["one"], found["two"], rtol=1e-4)
    assert [row["epoch"] for row in found["loop"]] == [1, 2] and all(
        row["loss"] > 0 for row in found["loop"]
    )


MISTAKES = (
    COMMON
    + """
from nucleus_course._util.errors import UserError
for count, batch in ((3, None), (0, None), (2, 5)):
    try:
        with data_parallel(count, batch):
            print("entered")
    except UserError as error:
        print(error)
"""
)


def test_mistakes_are_told():
    pytest.importorskip("jax")
    done = python(MISTAKES, backend="jax", XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert done.stdout.splitlines() == [
        "3 devices were requested, but there are 2 (cpu:0, cpu:1)",
        "0 devices were requested, but there are 2 (cpu:0, cpu:1)",
        "a batch of 5 cannot be shared by 2 devices: try --batch-size 4",
    ], done.stderr  # fmt: skip
