"""Stages as data: which layers train, at what rate, for how long."""

import dataclasses
import gc
import math

import keras
import numpy as np
import pytest
from tiny import disc_dataset, tiny_config, tiny_preset
from toy import ToyNetwork

from nucleus_course._util.errors import UserError
from nucleus_course.config import StageConfig
from nucleus_course.data.batches import TrainingBatches
from nucleus_course.models.layers import weighted_layers
from nucleus_course.models.mask_rcnn.network import MaskRCNNNetwork
from nucleus_course.models.weights.folder import named_variables
from nucleus_course.presets import PAPER_STAGES, get_preset
from nucleus_course.training import count_trainable, set_trainable
from nucleus_course.training.schedule import Schedule, locate, scale_stages
from nucleus_course.training.stages import compile_for, make_optimizer


@pytest.fixture(scope="module")
def network():
    return MaskRCNNNetwork(tiny_config(head_norm=True), seed=1)


def values(network):
    return {name: v.numpy() for name, v in named_variables(network).items()}


# ------------------------------------------------------------------ which layers


def test_the_papers_three_stages():
    assert [(s.layers, s.epochs, s.rate) for s in PAPER_STAGES] == [
        ("heads", 20, 1e-3),
        ("4+", 40, 1e-3),
        ("all", 40, 1e-4),
    ]
    training = get_preset("paper-resnet101").training
    assert (training.batch_size, training.optimizer, training.momentum) == (6, "sgd", 0.9)
    assert (training.global_clipnorm, training.weight_decay, training.crop) == (5.0, 1e-4, 512)


def test_layers_of_each_stage(network):
    names = [layer.name for layer in weighted_layers(network)]
    assert len(names) == len(set(names))
    everything = set_trainable(network, "all")
    assert everything == names
    heads = set_trainable(network, "heads")
    assert all(n.startswith(("fpn_", "rpn_", "mrcnn_")) for n in heads) and 20 < len(heads) < len(
        names
    )
    four = set(set_trainable(network, "4+"))
    assert four - set(heads) == {n for n in names if n.startswith(("res4", "res5", "bn4", "bn5"))}
    with pytest.raises(
        UserError, match="unknown layers 'neck' in a stage: choose one of heads, 4\\+, all"
    ):
        set_trainable(network, "neck")


def test_counts(network):
    """Counted by hand from the variables' shapes; BatchNorm's statistics are never trainable."""
    shapes = {name: int(np.prod(v.shape)) for name, v in named_variables(network).items()}
    total = sum(shapes.values())
    for stage, part in (("heads", ("fpn_", "rpn_", "mrcnn_")), ("all", ("",))):
        set_trainable(network, stage)
        moving = sum(
            n for name, n in shapes.items() if name.startswith(part) and "moving_" not in name
        )
        assert count_trainable(network) == (moving, total)


@pytest.mark.parametrize(
    ("layers", "train_norm"),
    [("heads", True), ("4+", True), ("all", False)],
    ids=["heads", "4+", "all, frozen norm"],
)
def test_what_is_frozen_does_not_move(layers, train_norm):
    """Nor do its BatchNorm statistics; with ``train_norm`` False none is updated."""
    config = tiny_config(head_norm=True, train_norm=train_norm)
    network = MaskRCNNNetwork(config, seed=1)
    preset = tiny_preset(config)
    moving = set(compile_for(network, preset.training, layers))
    network.compile(optimizer=keras.optimizers.SGD(0.1), run_eagerly=True, jit_compile=False)
    before = values(network)
    network.train_on_batch(TrainingBatches(disc_dataset(2), preset)[0][0])
    moved = {
        name for name, value in values(network).items() if not np.array_equal(value, before[name])
    }
    assert moved and {name.split("/")[0] for name in moved} <= moving
    assert (
        not any(name.startswith(("conv1", "bn_conv1", "res2", "bn2")) for name in moved)
        or layers == "all"
    )
    assert any("moving_" in name for name in moved) == train_norm


# ------------------------------------------------------------------ how fast


def test_constant_rate():
    assert [PAPER_STAGES[0].rate_at(e) for e in (0, 10, 19)] == [1e-3] * 3


def test_cosine_rate_with_warm_up():
    stage = StageConfig("all", epochs=10, rate=2.0, schedule="cosine", warmup_epochs=3)
    cosine = [2.0 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * e / 10))) for e in range(10)]
    expected = [c * w for c, w in zip(cosine, [1 / 4, 2 / 4, 3 / 4] + [1] * 7)]
    assert [stage.rate_at(e) for e in range(10)] == pytest.approx(expected)
    assert stage.rate_at(5, progress=1.0) == pytest.approx(0.02)
    assert stage.rate_at(5, progress=1.7) == pytest.approx(0.02)


def test_the_optimiser_is_the_configs():
    training = get_preset("paper-resnet50").training
    sgd = make_optimizer(training)
    assert isinstance(sgd, keras.optimizers.SGD) and sgd.momentum == 0.9
    assert sgd.global_clipnorm == 5.0 and sgd.clipnorm is None and sgd.weight_decay == 1e-4
    adamw = make_optimizer(
        dataclasses.replace(training, optimizer="adamw", ema=0.99, global_clipnorm=0.0)
    )
    assert (
        isinstance(adamw, keras.optimizers.AdamW) and adamw.use_ema and adamw.ema_momentum == 0.99
    )
    assert adamw.global_clipnorm is None
    with pytest.raises(UserError, match="unknown optimizer 'lamb': choose sgd or adamw"):
        make_optimizer(dataclasses.replace(training, optimizer="lamb"))


def test_weight_decay_spares_biases_and_norm():
    """Without a gradient only decay acts: kernels shrink by rate x decay, the rest stays."""
    network = ToyNetwork()
    network.head.bias.assign([1.0])
    training = tiny_preset(optimizer="sgd", weight_decay=0.1, momentum=0.0).training
    compile_for(network, training, "all")
    network.optimizer.learning_rate = 0.5
    before = values(network)
    network.optimizer.apply([keras.ops.zeros_like(v) for v in network.trainable_variables])
    after = values(network)
    for name in before:
        factor = 1 - 0.5 * 0.1 if name.endswith("kernel") else 1.0
        np.testing.assert_allclose(after[name], factor * before[name], rtol=1e-6, err_msg=name)


def test_the_global_norm_is_clipped():
    network = ToyNetwork()
    compile_for(
        network,
        tiny_preset(optimizer="sgd", weight_decay=0.0, momentum=0.0, global_clipnorm=5.0).training,
        "all",
    )
    network.optimizer.learning_rate = 1.0
    gradients = [keras.ops.ones_like(v) * 100 for v in network.trainable_variables]
    before = values(network)
    network.optimizer.apply(gradients)
    norm = math.sqrt(sum(((values(network)[n] - before[n]) ** 2).sum() for n in before))
    assert norm == pytest.approx(5.0, rel=1e-4)


def updated(optimizer):
    """Two variables after three steps in one graph; the graph is held by nothing when this returns."""
    import tensorflow as tf

    variables = [keras.Variable([1.0, -2.0], name=n) for n in ("kernel", "bias")]
    optimizer.build(variables)

    @tf.function
    def step(gradient):
        optimizer.apply([gradient, 2.0 * gradient], variables)

    for gradient in ([0.5, 1.0], [-2.0, 0.25], [1.0, 1.0]):
        step(tf.constant(gradient))
    return [v.numpy() for v in variables]


def graphs():
    gc.collect()
    return sum(type(thing).__name__ == "FuncGraph" for thing in gc.get_objects())


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="other backends have no such graph"
)
def test_no_graph_of_a_step_is_kept():
    """Keras's way keeps each for ever (Keras 3.15 with TensorFlow 2.21), so a process grew with each training."""
    training = dataclasses.replace(get_preset("compact").training, ema=0.9, global_clipnorm=1.0)
    ours, theirs = make_optimizer(training), make_optimizer(training)
    del theirs._backend_update_step
    before = graphs()
    values = updated(ours)
    assert graphs() == before
    np.testing.assert_array_equal(values, updated(theirs))


# ------------------------------------------------------------------ for how long


def epochs_of(stages):
    return [(s.name, s.epochs) for s in stages]


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (None, [20, 40, 40]), (100, [20, 40, 40]), (200, [40, 80, 80]), (10, [2, 4, 4]), (5, [1, 2, 2]),
        (3, [1, 1, 1]), (2, [1, 1]), (1, [1]),
    ],
)  # fmt: skip
def test_stages_are_scaled_with_one_epoch_each_while_they_last(epochs, expected):
    scaled = scale_stages(PAPER_STAGES, epochs)
    assert epochs_of(scaled) == [(s.name, n) for s, n in zip(PAPER_STAGES, expected)]
    assert [s.rate for s in scaled] == [s.rate for s in PAPER_STAGES[: len(expected)]]


def test_a_short_last_stage_is_not_scaled_away():
    stages = (StageConfig("a", epochs=98), StageConfig("b", epochs=1), StageConfig("c", epochs=1))
    assert epochs_of(scale_stages(stages, 10)) == [("a", 8), ("b", 1), ("c", 1)]


@pytest.mark.parametrize("epochs", range(1, 60))
def test_scaled_epochs_add_up(epochs):
    assert sum(n for _, n in epochs_of(scale_stages(PAPER_STAGES, epochs))) == epochs


def test_locate_an_epoch():
    found = [locate(PAPER_STAGES, e)[:2] for e in (0, 19, 20, 59, 60, 99)]
    assert found == [(0, 0), (0, 19), (1, 0), (1, 39), (2, 0), (2, 39)]


def test_locate_a_share_of_the_time():
    for share, number, part in (
        (0.0, 0, 0.0),
        (0.1, 0, 0.5),
        (0.2, 1, 0.0),
        (0.5, 1, 0.75),
        (0.8, 2, 0.5),
        (1.0, 2, 1.0),
    ):
        found = locate(PAPER_STAGES, 7, share)
        assert found[:2] == (number, None) and found[2] == pytest.approx(part), share


def test_a_schedule_by_epochs_and_by_the_clock():
    by_epochs, by_clock = Schedule(PAPER_STAGES), Schedule(PAPER_STAGES, minutes=2)
    assert by_epochs.epochs == by_clock.epochs == 100
    assert not by_epochs.over(99, 1e9) and by_epochs.over(100, 0)
    assert not by_clock.over(1000, 119) and by_clock.over(0, 120)
    assert by_epochs.share(60) is None
    assert [by_clock.share(s) for s in (0, 60, 500)] == [0, 0.5, 1]
