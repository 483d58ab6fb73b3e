"""Writing an ONNX graph: nodes, constants, and the layers that trunk and pyramid are made of.

The graph is written from the layers and their weights, not traced from a backend: it is the same from
TensorFlow, JAX and torch, takes a second, and BatchNorm is folded into the convolution before it.
Feature maps are (1, C, H, W) inside, as ONNX wants them.
"""

import numpy as np

from nucleus_course.prediction.engines import need

OPSET = 17


class Graph:
    """An ONNX graph under construction. Tensors go by name; every method gives the name of its result."""

    def __init__(self, name):
        self.onnx = need("onnx")
        self.name = name
        self.nodes, self.constants, self.inputs, self.outputs = [], {}, [], []
        self.folded = {}  # output of a convolution -> its weight's and bias' names

    def node(self, kind, *inputs, outputs=1, **attributes):
        """Add a node; arrays among the inputs become constants. Gives its output's name, or a tuple of names."""
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        number = len(self.nodes)
        results = [
            f"{kind.lower()}_{number}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)
        ]
        self.nodes.append(
            self.onnx.helper.make_node(kind, names, results, name=f"{kind}_{number}", **attributes)
        )
        return results[0] if outputs == 1 else tuple(results)

    def constant(self, value):
        """A constant from an array; Python floats are float32, integers int64."""
        value = np.asarray(value)
        value = value.astype(
            {"f": "float32", "i": "int64", "u": "int64", "b": "bool"}[value.dtype.kind]
        )
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value
        return name

    def input(self, name, shape, dtype="float32"):
        """Declare an input; a string in ``shape`` is an axis of any length."""
        self.inputs.append(self._value(name, shape, dtype))
        return name

    def output(self, tensor, name, shape, dtype="float32"):
        """Declare a tensor an output under a name."""
        self.nodes.append(
            self.onnx.helper.make_node("Identity", [tensor], [name], name=f"output_{name}")
        )
        self.outputs.append(self._value(name, shape, dtype))

    def _value(self, name, shape, dtype):
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.onnx.helper.make_tensor_value_info(name, kind, list(shape))

    def model(self, metadata=None):
        """The finished ``onnx.ModelProto``, checked."""
        helper = self.onnx.helper
        constants = [
            self.onnx.numpy_helper.from_array(np.ascontiguousarray(v), k)
            for k, v in self.constants.items()
        ]
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="nucleus_course",
            ir_version=8,
        )
        helper.set_model_props(model, {k: str(v) for k, v in (metadata or {}).items()})
        self.onnx.checker.check_model(model, full_check=True)
        return model

    # ------------------------------------------------------------------ layers

    def convolution(self, x, kernel, bias=None, pads=(0, 0, 0, 0), stride=1):
        """Keras' kernel (kh, kw, in, out) on (1, in, H, W); pads (top, left, bottom, right)."""
        kernel = array(kernel)
        height, width = kernel.shape[:2]
        weight = self.constant(kernel.transpose(3, 2, 0, 1))
        bias = self.constant(np.zeros(kernel.shape[3]) if bias is None else array(bias))
        y = self.node(
            "Conv",
            x,
            weight,
            bias,
            kernel_shape=[height, width],
            strides=[stride] * 2,
            pads=[int(p) for p in pads],
        )
        self.folded[y] = (weight, bias)
        return y

    def fold_norm(self, y, layer):
        """BatchNorm at inference is a scale and a shift a channel: into the weights of the convolution ``y``."""
        weight, bias = self.folded.pop(y)
        scale, shift = norm_terms(layer)
        self.constants[weight] = (self.constants[weight] * scale[:, None, None, None]).astype(
            "float32"
        )
        self.constants[bias] = (self.constants[bias] * scale + shift).astype("float32")
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
    scale = array(layer.gamma) / np.sqrt(array(layer.moving_variance) + layer.epsilon)
    return scale, array(layer.beta) - array(layer.moving_mean) * scale


def same_padding(extent, kernel, stride):
    """(before, after) of 'same' padding, as TensorFlow pads: the odd one goes behind."""
    total = max((-(-extent // stride) - 1) * stride + kernel - extent, 0)
    return total // 2, total - total // 2


def _pads(layer, window, stride, height, width):
    if layer.padding == "valid":
        return (0, 0, 0, 0)
    (top, bottom), (left, right) = (
        same_padding(n, k, stride) for n, k in zip((height, width), window)
    )
    return top, left, bottom, right


def write_functional(graph, model, inputs):
    """Write a functional Keras model of convolutions, BatchNorm, ReLU, sums, pooling, padding, doubling.

    Args:
        inputs: [(tensor name, height, width), …], one a model input.

    Returns:
        The same triple for each of the model's outputs.

    Raises:
        NotImplementedError: for a layer of another kind.
    """
    from keras import layers

    made = {id(tensor): triple for tensor, triple in zip(_listed(model.inputs), inputs)}
    for layer in model.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        triples = [made[id(t)] for t in _listed(layer.input)]
        x, height, width = triples[0]
        if isinstance(layer, layers.Conv2D) and not isinstance(layer, layers.Conv2DTranspose):
            stride = layer.strides[0]
            pads = _pads(layer, layer.kernel_size, stride, height, width)
            x = graph.convolution(
                x, layer.kernel, layer.bias if layer.use_bias else None, pads, stride
            )
            if layer.activation.__name__ == "relu":
                x = graph.node("Relu", x)
            height, width = (
                _extent(height, pads[::2], layer.kernel_size[0], stride),
                _extent(width, pads[1::2], layer.kernel_size[1], stride),
            )
        elif isinstance(layer, layers.BatchNormalization):
            graph.fold_norm(x, layer)
        elif isinstance(layer, layers.ReLU):
            x = graph.node("Relu", x)
        elif isinstance(layer, layers.Add):
            x = graph.node("Add", *[t[0] for t in triples])
        elif isinstance(layer, layers.ZeroPadding2D):
            (top, bottom), (left, right) = layer.padding
            x = graph.node("Pad", x, np.array([0, 0, top, left, 0, 0, bottom, right]))
            height, width = height + top + bottom, width + left + right
        elif isinstance(layer, layers.MaxPooling2D):
            stride = layer.strides[0]
            pads = _pads(layer, layer.pool_size, stride, height, width)
            x = graph.node(
                "MaxPool",
                x,
                kernel_shape=list(layer.pool_size),
                strides=[stride] * 2,
                pads=list(pads),
            )
            height, width = (
                _extent(height, pads[::2], layer.pool_size[0], stride),
                _extent(width, pads[1::2], layer.pool_size[1], stride),
            )
        elif isinstance(layer, layers.UpSampling2D):
            scales = np.array([1, 1, *layer.size], "float32")
            x = graph.node(
                "Resize",
                x,
                "",
                scales,
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
            height, width = height * layer.size[0], width * layer.size[1]
        else:
            raise NotImplementedError(
                f"{type(layer).__name__} ({layer.name}) cannot be written as ONNX"
            )
        made[id(layer.output)] = (x, height, width)
    return [made[id(t)] for t in _listed(model.outputs)]


def _extent(extent, pads, kernel, stride):
    return (extent + sum(pads) - kernel) // stride + 1


def _listed(tensors):
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]
