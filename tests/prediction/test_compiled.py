"""Functions traced once per shape: a bounded number of them stays in memory."""

import gc
import weakref

import keras
import numpy as np
import pytest

from nucleus_course.prediction.engines import compiled as module

tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="other backends keep their own traces"
)


@tensorflow
def test_the_shapes_used_last_stay_traced_and_older_ones_are_given_back(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(module, "TRACES", 3)
    graphs = []

    def double(array):
        graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return 2 * array

    call = module.compiled(double, None)
    for length in (1, 2, 3, 1, 3, 1):
        assert np.array_equal(call(np.ones(length, np.float32)), 2 * np.ones(length))
    assert len(graphs) == 3
    call(np.ones(4, np.float32))  # in place of 2, which was used least lately
    gc.collect()
    assert [graph() is not None for graph in graphs] == [True, False, True, True]
    call(np.ones(1, np.float32))
    assert len(graphs) == 4
    assert np.array_equal(call(np.ones(2, np.float32)), [2, 2]) and len(graphs) == 5


@tensorflow
def test_a_free_first_axis_and_another_type_count_as_they_should():
    traced = []

    def double(array):
        traced.append(array.dtype)
        return 2 * array

    call = module.compiled(double, None, free=1)
    for length in range(1, 40):
        assert call(np.ones((length, 2), np.float32)).shape == (length, 2)
    call(np.ones((3, 2), np.int32))
    assert len(traced) == 2
