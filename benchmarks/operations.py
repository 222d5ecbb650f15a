"""What a network costs: its parameters, and its multiply-adds for a second of audio.

Counted are the products of matrices and the convolutions in the graph that TensorFlow makes of a
call, so that one rule holds for every network: each number that comes out counts as often as
products were added up for it, in loops as often as they run. As in the literature, what works on
numbers one by one (activations, norms, gates, sums) is not counted, nor is the Fourier transform.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras

from models import separator
from pipeline import schema

# The tables of the literature are for 16,000 samples. It matters to networks with attention over
# time, whose cost grows with the square of the length.
SECONDS = 2.0

# What must not go uncounted.
_HEAVY = re.compile(r"MatMul|Matmul|Conv|Einsum|RNN|LSTM|GRU|XlaDot")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        parameters: numbers that it holds.
        multiply_adds: for one second of audio.
    """

    parameters: int
    multiply_adds: float


def cost(network: keras.Model, *, sample_rate: int = 8000, seconds: float = SECONDS) -> Cost:
    """Counts a network of the registry.

    Args:
        network: its class says what it `takes`.
        sample_rate: of the audio, in Hz.
        seconds: of audio that are counted, then divided by their number.

    Raises:
        ValueError: see `multiply_adds`.
    """
    samples = round(seconds * sample_rate)
    shape: tuple[int, ...] = (1, samples)
    if network.takes == separator.LOG_MAGNITUDE:
        shape = (1, math.ceil(samples / schema.HOP) + 1, schema.NUM_BINS)
    # Clustering is left out: how often its loop runs is not known before, and it is a small part.
    clusters = hasattr(network, "embeddings") and not hasattr(network, "both")
    function = network.embeddings if clusters else network
    if not network.built:
        network.build((None, *shape[1:]))
    total = multiply_adds(lambda inputs: function(inputs, training=False), shape)
    return Cost(network.count_params(), total / seconds)


def multiply_adds(function: Callable[[Any], Any], shape: Sequence[int]) -> int:
    """Counts what a function of one float32 tensor does, on TensorFlow.

    Args:
        function: of `keras.ops` or TensorFlow.
        shape: of its input, the batch included.

    Raises:
        ValueError: the graph holds an operation or a loop that cannot be counted, or Keras runs on
            another backend.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(f"counting needs Keras on TensorFlow, not {keras.backend.backend()}")
    import tensorflow as tf

    signature = [tf.TensorSpec(tuple(shape), tf.float32)]
    traced = tf.function(function, input_signature=signature, autograph=False)
    # On a GPU a whole LSTM may be one operation.
    with tf.device("CPU"):
        return _of_graph(traced.get_concrete_function().graph)


def _of_graph(graph: Any) -> int:
    """What leads to the outputs: TensorFlow runs nothing else that is counted."""
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
    """The graph of a function that an operation calls."""
    # No public way leads from an operation to the traced graph, with its shapes, of what it calls.
    return operation.graph._get_function(operation.get_attr(attribute).name).graph


def _repetitions(loop: Any) -> int:
    """How often a `tf.while_loop` with `maximum_iterations` runs, as Keras' recurrent layers do."""
    import tensorflow as tf

    # The first two loop variables are TensorFlow's own: its counter, and that maximum or -1.
    maximum = loop.inputs[1]
    try:
        with tf.compat.v1.Session(graph=loop.graph) as session:
            found = int(session.run(maximum))
    except tf.errors.InvalidArgumentError:  # It depends on what is handed in.
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
    """The product of all axes' sizes: two factors for each combination of indices."""
    terms = operation.get_attr("equation").decode().split("->")[0].split(",")
    if len(terms) == 1:
        return 0
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, operation.inputs, strict=True):
        shape = _shape(tensor)
        before, dots, after = term.partition("...")
        # Axes under the dots get names by their places, counted from the last as they broadcast.
        unnamed = len(shape) - len(before) - len(after) if dots else 0
        names = [*before, *(f"dots {i}" for i in range(unnamed, 0, -1)), *after]
        for name, size in zip(names, shape, strict=True):
            sizes[name] = max(size, sizes.get(name, 1))
    return math.prod(sizes.values())


def _convolution(operation: Any) -> int:
    """Filters are `[height, width, input channel of a group, output channel]`."""
    return _size(operation.outputs[0]) * math.prod(_shape(operation.inputs[1])[:3])


def _depthwise_convolution(operation: Any) -> int:
    return _size(operation.outputs[0]) * math.prod(_shape(operation.inputs[1])[:2])


def _transposed_convolution(operation: Any) -> int:
    """Each number that goes in is multiplied with a whole filter."""
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
