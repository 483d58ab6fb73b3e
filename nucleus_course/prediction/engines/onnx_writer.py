"""Writing an ONNX graph: nodes, constants, and the layers of trunk and pyramid.

The graph is written from the layers and their weights, not traced, so it is the same on every backend and
takes a second. BatchNorm is folded into the convolution before it. Feature maps are (1, C, H, W), as ONNX
requires.
"""

import numpy as np

from nucleus_course.prediction.engines import need

OPSET = 17
PADDING = {"same": "SAME_UPPER", "valid": "VALID"}  # Keras's names in ONNX


class Graph:
    """An ONNX graph under construction. Tensors are named; every method returns the name of its result."""

    def __init__(self, name):
        self.onnx = need("onnx")
        self.name = name
        self.nodes, self.constants, self.inputs, self.outputs = [], {}, [], []
        self.folded = {}  # output of a convolution -> names of its weight and bias

    def node(self, kind, *inputs, outputs=1, **attributes):
        """Add a node; arrays among the inputs become constants. Returns its output's name, or a tuple of names."""
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        name = f"{kind.lower()}_{len(self.nodes)}"
        results = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, names, results, name=name, **attributes))
        return name if outputs == 1 else tuple(results)

    def constant(self, value):
        """A constant from an array; Python floats are float32, integers int64."""
        value = np.asarray(value)
        dtype = {"f": "float32", "i": "int64", "u": "int64", "b": "bool"}[value.dtype.kind]
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value.astype(dtype)
        return name

    def input(self, name, shape):
        """Declare a float32 input; a string in ``shape`` is an axis of any length."""
        self.inputs.append(self._value(name, shape, "float32"))
        return name

    def output(self, tensor, name, shape, dtype="float32"):
        """Declare a tensor as a named output."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [tensor], [name]))
        self.outputs.append(self._value(name, shape, dtype))

    def _value(self, name, shape, dtype):
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.onnx.helper.make_tensor_value_info(name, kind, list(shape))

    def model(self, metadata=None):
        """The finished ``onnx.ModelProto``, checked."""
        helper, from_array = self.onnx.helper, self.onnx.numpy_helper.from_array
        constants = [from_array(np.ascontiguousarray(v), k) for k, v in self.constants.items()]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, constants)
        about = {"producer_name": "nucleus_course", "ir_version": 8}
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], **about)
        helper.set_model_props(model, {k: str(v) for k, v in (metadata or {}).items()})
        self.onnx.checker.check_model(model, full_check=True)
        return model

    # ------------------------------------------------------------------ often needed

    def reshape(self, x, *shape):
        """``x`` in another shape; -1 is inferred."""
        return self.node("Reshape", x, np.array(shape))

    def gather(self, x, index):
        """Rows of ``x``."""
        return self.node("Gather", x, index, axis=0)

    def halves(self, x):
        """The first and the second half of the columns, such as corners (N, 2) of boxes (N, 4)."""
        return self.node("Split", x, outputs=2, axis=1)

    def largest(self, x, count):
        """The ``count`` largest of (N,) in falling order, and their indices."""
        return self.node("TopK", x, np.array([count]), outputs=2, axis=0)

    def channels_first(self, x):
        """(N, H, W, C) -> (N, C, H, W)."""
        return self.node("Transpose", x, perm=[0, 3, 1, 2])

    def channels_last(self, x):
        """(N, C, H, W) -> (N, H, W, C)."""
        return self.node("Transpose", x, perm=[0, 2, 3, 1])

    # ------------------------------------------------------------------ layers

    def convolution(self, x, kernel, bias=None, stride=1, padding="valid"):
        """A Keras kernel (kh, kw, in, out) on (N, in, H, W)."""
        kernel = array(kernel)
        weight = self.constant(kernel.transpose(3, 2, 0, 1))
        bias = self.constant(np.zeros(kernel.shape[3]) if bias is None else array(bias))
        options = {"strides": [stride] * 2, "auto_pad": PADDING[padding]}
        y = self.node("Conv", x, weight, bias, **options)
        self.folded[y] = (weight, bias)
        return y

    def fold_norm(self, y, layer):
        """Fold a BatchNorm's scale and shift of each channel into the weights of the convolution ``y``."""
        weight, bias = self.folded.pop(y)
        scale, shift = norm_terms(layer)
        self.constants[weight] = self.constants[weight] * scale[:, None, None, None]
        self.constants[bias] = self.constants[bias] * scale + shift
        return y

    def dense(self, x, kernel, bias):
        """(N, in) -> (N, out)."""
        return self.node("Gemm", x, array(kernel), array(bias))


def array(variable):
    """A variable, tensor or array of any backend as a float32 array."""
    from keras import ops

    return np.asarray(ops.convert_to_numpy(variable), "float32")


def norm_terms(layer):
    """(scale, shift), each (C,) float32, of a BatchNormalization layer with its moving statistics."""
    scale = array(layer.gamma) / np.sqrt(array(layer.moving_variance) + np.float32(layer.epsilon))
    return scale, array(layer.beta) - array(layer.moving_mean) * scale


def write_functional(graph, model, inputs):
    """Write a functional Keras model of convolutions, BatchNorm, ReLU, sums, pooling, padding, upsampling.

    Args:
        inputs: a tensor name for each of the model's inputs.

    Returns:
        A name for each of its outputs.

    Raises:
        NotImplementedError: for a layer of another kind.
    """
    from keras import layers, tree

    made = {id(tensor): name for tensor, name in zip(model.inputs, inputs)}
    for layer in model.layers:
        if not isinstance(layer, layers.InputLayer):
            own = [made[id(tensor)] for tensor in tree.flatten(layer.input)]
            made[id(layer.output)] = _write_layer(graph, layer, *own)
    return [made[id(tensor)] for tensor in model.outputs]


def _write_layer(graph, layer, x, *more):
    from keras import layers

    if type(layer) is layers.Conv2D:
        bias = layer.bias if layer.use_bias else None
        x = graph.convolution(x, layer.kernel, bias, layer.strides[0], layer.padding)
        return graph.node("Relu", x) if layer.activation.__name__ == "relu" else x
    if isinstance(layer, layers.BatchNormalization):
        return graph.fold_norm(x, layer)
    if isinstance(layer, layers.ReLU):
        return graph.node("Relu", x)
    if isinstance(layer, layers.Add):
        return graph.node("Add", x, *more)
    if isinstance(layer, layers.ZeroPadding2D):
        (top, bottom), (left, right) = layer.padding
        return graph.node("Pad", x, np.array([0, 0, top, left, 0, 0, bottom, right]))
    if isinstance(layer, layers.MaxPooling2D):
        size, strides = list(layer.pool_size), list(layer.strides)
        padding = PADDING[layer.padding]
        return graph.node("MaxPool", x, kernel_shape=size, strides=strides, auto_pad=padding)
    if isinstance(layer, layers.UpSampling2D):
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        scales = np.array([1, 1, *layer.size], "float32")
        return graph.node("Resize", x, "", scales, mode="nearest", **how)
    raise NotImplementedError(f"{type(layer).__name__} ({layer.name}) cannot be written as ONNX")
