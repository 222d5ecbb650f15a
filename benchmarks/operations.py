"""Computes a network's cost: its parameters, and its multiply-adds per second of audio.

It counts the matrix products and convolutions in the graph that TensorFlow traces for a call, so
one rule holds for every network: each output value counts once for every product summed for it, and
loops count as often as they run. As in the literature, element-wise operations (activations, norms,
gates, sums) and the Fourier transform are not counted.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras

from models import separator
from pipeline import schema

# Tables in the literature are for 16,000 samples. The length matters for networks with attention
# over time, whose cost is quadratic in it.
SECONDS = 2.0

# Operations that must not be missed.
_HEAVY = re.compile(r"MatMul|Matmul|Conv|Einsum|RNN|LSTM|GRU|XlaDot")


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a network.

    Attributes:
        parameters: number of parameters.
        multiply_adds: multiply-adds per second of audio.
    """

    parameters: int
    multiply_adds: float


def cost(network: keras.Model, *, sample_rate: int = 8000, seconds: float = SECONDS) -> Cost:
    """Counts a network of the registry.

    Args:
        network: the network; its class declares what it `takes`.
        sample_rate: the audio's rate in Hz.
        seconds: duration of the audio that is counted; the result is per second.

    Raises:
        ValueError: see `multiply_adds`.
    """
    samples = round(seconds * sample_rate)
    shape: tuple[int, ...] = (1, samples)
    if network.takes == separator.LOG_MAGNITUDE:
        shape = (1, math.ceil(samples / schema.HOP) + 1, schema.NUM_BINS)
    # Clustering is left out: its number of iterations is not known in advance, and it is cheap.
    clusters = hasattr(network, "embeddings") and not hasattr(network, "both")
    function = network.embeddings if clusters else network
    if not network.built:
        network.build((None, *shape[1:]))
    total = multiply_adds(lambda inputs: function(inputs, training=False), shape)
    return Cost(network.count_params(), total / seconds)


def multiply_adds(function: Callable[[Any], Any], shape: Sequence[int]) -> int:
    """Counts the multiply-adds of a function of one float32 tensor, on TensorFlow.

    Args:
        function: a function that uses `keras.ops` or TensorFlow.
        shape: the shape of its input, including the batch.

    Raises:
        ValueError: the graph holds an operation or a loop that cannot be counted, or Keras runs on
            another backend.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(f"counting needs Keras on TensorFlow, not {keras.backend.backend()}")
    import tensorflow as tf

    signature = [tf.TensorSpec(tuple(shape), tf.float32)]
    traced = tf.function(function, input_signature=signature, autograph=False)
    # On a GPU a whole LSTM may be a single operation.
    with tf.device("CPU"):
        return _of_graph(traced.get_concrete_function().graph)


def _of_graph(graph: Any) -> int:
    """Counts the operations that lead to the outputs; TensorFlow runs no other counted ones."""
    waiting = [output.op for output in graph.outputs]
    reached = set()
    while waiting:
        operation = waiting.pop()
        if operation not in reached:
            reached.add(operation)
            waiting.extend(value.op for value in operation.inputs)
    return sum(_of_operation(operation) for operation in reached)


def _of_operation(operation: Any) -> int:
    kind = operation.type
    if kind in ("While", "StatelessWhile"):
        return _repetitions(operation) * _of_graph(_function(operation, "body"))
    if kind in ("If", "StatelessIf"):
        branches = (_function(operation, f"{which}_branch") for which in ("then", "else"))
        return max(_of_graph(branch) for branch in branches)
    if kind in ("PartitionedCall", "StatefulPartitionedCall"):
        return _of_graph(_function(operation, "f"))
    if kind in _PRODUCTS:
        return _PRODUCTS[kind](operation)
    if _HEAVY.search(kind):
        raise ValueError(f"cannot count {operation.name}, of the kind {kind}")
    return 0


def _function(operation: Any, attribute: str) -> Any:
    """Returns the graph of a function that an operation calls."""
    # There is no public API to get the traced graph, with shapes, that an operation calls.
    return operation.graph._get_function(operation.get_attr(attribute).name).graph


def _repetitions(loop: Any) -> int:
    """Returns the iterations of a `tf.while_loop` with `maximum_iterations`, as Keras' RNNs use."""
    import tensorflow as tf

    # The first two loop variables are TensorFlow's own: the counter, and the maximum or -1.
    maximum = loop.inputs[1]
    try:
        with tf.compat.v1.Session(graph=loop.graph) as session:
            found = int(session.run(maximum))
    except tf.errors.InvalidArgumentError:  # It depends on the function's input.
        found = -1
    if found < 0:
        raise ValueError(f"cannot count the loop {loop.name}: how often it runs is not fixed")
    return found


def _shape(tensor: Any) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"cannot count {tensor.op.name}: its shape {tensor.shape} is not fixed")
    return tensor.shape.as_list()


def _size(tensor: Any) -> int:
    return math.prod(_shape(tensor))


def _matmul(operation: Any) -> int:
    added_up = _shape(operation.inputs[0])[0 if operation.get_attr("transpose_a") else 1]
    return _size(operation.outputs[0]) * added_up


def _batch_matmul(operation: Any) -> int:
    added_up = _shape(operation.inputs[0])[-2 if operation.get_attr("adj_x") else -1]
    return _size(operation.outputs[0]) * added_up


def _einsum(operation: Any) -> int:
    """Multiplies the sizes of all axes: one product per combination of indices."""
    terms = operation.get_attr("equation").decode().split("->")[0].split(",")
    if len(terms) == 1:
        return 0
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, operation.inputs, strict=True):
        shape = _shape(tensor)
        before, dots, after = term.partition("...")
        # Axes of the ellipsis are named by position, counted from the last, as in broadcasting.
        unnamed = len(shape) - len(before) - len(after) if dots else 0
        names = [*before, *(f"dots {i}" for i in range(unnamed, 0, -1)), *after]
        for name, size in zip(names, shape, strict=True):
            sizes[name] = max(size, sizes.get(name, 1))
    return math.prod(sizes.values())


def _convolution(operation: Any) -> int:
    """Counts a convolution; filters are `[height, width, input channel per group, output]`."""
    return _size(operation.outputs[0]) * math.prod(_shape(operation.inputs[1])[:3])


def _depthwise_convolution(operation: Any) -> int:
    return _size(operation.outputs[0]) * math.prod(_shape(operation.inputs[1])[:2])


def _transposed_convolution(operation: Any) -> int:
    """Counts a transposed convolution: each input value is multiplied by a whole filter."""
    return _size(operation.inputs[2]) * math.prod(_shape(operation.inputs[1])[:3])


_PRODUCTS: dict[str, Callable[[Any], int]] = {
    "MatMul": _matmul,
    "BatchMatMul": _batch_matmul,
    "BatchMatMulV2": _batch_matmul,
    "BatchMatMulV3": _batch_matmul,
    "Einsum": _einsum,
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise_convolution,
    "Conv2DBackpropInput": _transposed_convolution,
}
