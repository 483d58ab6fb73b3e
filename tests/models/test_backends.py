"""TensorFlow, JAX and torch: the same detections from the same weights, and each of them learns.

Each backend runs in its own process, compiled as in use (tf.function, jax.jit), and writes its results
to a file. Boxes may differ by 0.01 pixels, probabilities by 1e-3: convolutions add in another order.
"""

import importlib.util

import numpy as np
import pytest
from tiny import lively_model, python

BACKENDS = ("tensorflow", "jax", "torch")

RUN = """
import sys
import keras, numpy as np
from keras import ops
from tiny import disc_dataset, tiny_preset
from nucleus_course.data.batches import TrainingBatches
from nucleus_course.prediction.segmenter import MaskRCNN, build
from nucleus_course.prediction.engines.compiled import compiled
from nucleus_course.models.weights.folder import named_variables
from nucleus_course.prediction.pipeline import prepare
from nucleus_course.training import train
from nucleus_course.training.progress import EpochWatch

def values(model):
    return {k: v.numpy() for k, v in named_variables(model.network).items()}

def same(a, b):
    return np.array(all(np.array_equal(a[k], b[k]) for k in a))

folder, out = sys.argv[1:]
model, data = MaskRCNN.load(folder), disc_dataset(4)
image = data[0].image

# The compiled pieces: everything up to the final NMS; detections; Keras's call.
prepared, network = prepare(image, model.config), model.network
pyramid, boxes, scores = model.engine.candidates(prepared)
found = {"candidate_boxes": boxes, "candidate_scores": scores, **{f"p{i}": p for i, p in enumerate(pyramid, 2)}}
detections = model.predict(image)
found |= {"boxes": detections.boxes, "scores": detections.scores, "masks": detections.mask_probs, "labels": detections.label_image()}
called = compiled(lambda x: network(x, training=False), network)(prepared.input)
found |= {f"called_{k}": v for k, v in called.items()}
if keras.backend.backend() != "jax":  # eager, operation by operation, is slow there
    found["traced"] = model.trace(image).detections.boxes

# The losses of one batch: sampling takes all there is, so random numbers do not matter.
preset = tiny_preset(model.config, optimizer="sgd", momentum=0.0, weight_decay=0.0, workers=1)
batch = TrainingBatches(data, preset)[0][0]
names = list(batch)
losses = compiled(lambda *arrays: network.loss_values(network(dict(zip(names, arrays)), training=True)), network)
found |= {f"loss_{k}": v for k, v in losses(*batch.values()).items()}
found = {k: ops.convert_to_numpy(v) for k, v in found.items()}

# Two epochs through fit, with Ctrl-C in the second; then on from there.
before, kept, ended = values(model), [], EpochWatch.on_train_batch_end

def interrupt(self, step, logs=None):
    ended(self, step, logs)
    if self.batches.epoch == 1:
        raise KeyboardInterrupt

EpochWatch.on_train_batch_end = interrupt
history = train(model, data, preset=preset, run=out + ".run", progress=False, on_epoch=lambda row: kept.append(values(model)))
found["stopped_loss"] = np.array([row["loss"] for row in history.rows])
found["still"] = np.array([k for k in before if np.array_equal(before[k], kept[0][k])], dtype=str)
found["restored"] = same(kept[0], values(model))
found["saved"] = same(kept[0], values(MaskRCNN.load(out + ".run")))
EpochWatch.on_train_batch_end = ended
history = train(build(model.config), data, preset=preset, run=out + ".run", resume=True, progress=False)
found["resumed_loss"] = np.array([row["loss"] for row in history.rows])
np.savez(out, **found)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights that find many nuclei, saved by this process's backend."""
    # Sampling that takes everything does not depend on random numbers.
    model = lively_model(
        rpn_anchors_per_image=8192,
        rois_per_image=400,
        mask_slots_per_image=0,
        roi_positive_fraction=0.5,
    )
    return model.save(tmp_path_factory.mktemp("backends") / "weights")


@pytest.fixture(scope="module")
def results(weights, tmp_path_factory):
    """results(backend): what that backend found; its process runs once."""
    done = {}

    def of(backend):
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"{backend} is not installed")
        if backend not in done:
            out = tmp_path_factory.mktemp(backend) / "found.npz"
            process = python(RUN, weights, out, backend=backend, OMP_NUM_THREADS="1")
            assert process.returncode == 0, process.stderr[-3000:]
            with np.load(out, allow_pickle=False) as archive:
                done[backend] = dict(archive)
        return done[backend]

    return of


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_the_same_outputs_as_on_tensorflow(results, backend):
    ours, reference = results(backend), results("tensorflow")
    assert len(reference["boxes"]) > 5
    for level in range(2, 7):
        np.testing.assert_allclose(ours[f"p{level}"], reference[f"p{level}"], rtol=1e-3, atol=1e-4)
    for name, tolerance in (
        ("candidate_boxes", 1e-2), ("candidate_scores", 1e-4), ("boxes", 1e-2), ("scores", 1e-3), ("masks", 1e-3),
        ("called_boxes", 1e-2), ("called_scores", 1e-4), ("called_masks", 1e-3),
    ):  # fmt: skip
        np.testing.assert_allclose(
            ours[name], reference[name], atol=tolerance, rtol=1e-4, err_msg=name
        )
    assert (ours["labels"] != reference["labels"]).mean() < 0.001
    for name in ("rpn_class", "rpn_box", "class", "box", "mask"):
        np.testing.assert_allclose(
            ours[f"loss_{name}"], reference[f"loss_{name}"], rtol=1e-3, err_msg=name
        )


@pytest.mark.parametrize("backend", ("tensorflow", "torch"))
def test_the_trace_agrees(results, backend):
    found = results(backend)
    np.testing.assert_allclose(found["traced"], found["boxes"], atol=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_through_fit_moves_every_weight(results, backend):
    found = results(backend)
    assert np.isfinite(found["stopped_loss"]).all() and len(found["stopped_loss"]) == 1
    assert found["still"].tolist() == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_and_resume(results, backend):
    """Also on JAX, whose fit takes the variables' values away while it runs."""
    found = results(backend)
    assert found["restored"] and found["saved"]
    assert len(found["resumed_loss"]) == 2 and np.isfinite(found["resumed_loss"]).all()
    assert found["resumed_loss"][0] == found["stopped_loss"][0]
