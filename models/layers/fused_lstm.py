"""The LSTM layer of Keras in fewer, larger operations for CPUs.

TensorFlow's `BlockLSTM` runs all frames in one operation. The gradient here computes the gate
gradients in a loop backwards over the frames, with one matrix product per frame. The gradients of
weights and inputs do not depend on the next frame, so one product computes them for all frames.
`python -m benchmarks.step` compares the time of a step with that of Keras.

Runtimes that lack these operations run a loop; `in_blocks` is for a runtime whose loops are slow.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from models.layers import unrolled_lstm
from pipeline.io import cores

Tensor = Any

# Smallest number of sequences in a part of the batch; with fewer, the products are too narrow.
_SMALLEST_PART = 16

_blocks = contextvars.ContextVar("blocks", default=False)


class LSTM(keras.layers.LSTM):
    """`keras.layers.LSTM` with the same weights and settings, and equal results up to rounding.

    Attributes:
        fused: whether to use the fused operations. They need TensorFlow in float32 on a CPU, and
            whole sequences without a mask; XLA and other runtimes lack them. The trainer and
            `export.saved_model` switch them on with `set_fused` where this holds.
        alone: whether no other layer runs in parallel, as the two directions of a BLSTM do. If so,
            the batch is split into parts, which keep all cores busy.
    """

    fused = False
    alone = True

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        training: bool | None = False,
    ) -> Tensor:
        if not ((self.fused or _blocks.get()) and self._plain(initial_state, mask)):
            return super().call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )
        cell = self.cell
        weights = (cell.kernel.value, cell.recurrent_kernel.value, cell.bias.value)
        return _lstm(sequences, weights, bool(training), self.alone)

    def over_positions(
        self, sequences: Tensor, gain: Tensor, shift: Tensor, training: bool | None = False
    ) -> Tensor:
        """The layer on `sequences * gain + shift`, with frames first.

        With the fused operations, and `in_blocks`, this saves two transpositions, and gain and
        shift cost nothing.

        Args:
            sequences: `[frame, batch, feature]`.
            gain: `[feature]`.
            shift: `[feature]`.
            training: whether the gradient is needed.

        Returns:
            `[frame, batch, unit]`.
        """
        if not ((self.fused or _blocks.get()) and self._plain(None, None)):
            x = ops.transpose(sequences * gain + shift, (1, 0, 2))
            return ops.transpose(self.call(x, training=training), (1, 0, 2))
        cell = self.cell
        kernel = ops.convert_to_tensor(cell.kernel)
        bias = ops.matmul(ops.convert_to_tensor(shift)[None], kernel)[0] + cell.bias
        weights = (ops.convert_to_tensor(gain)[:, None] * kernel, cell.recurrent_kernel.value, bias)
        return _over_positions(sequences, weights, bool(training), self.alone)

    def _plain(self, initial_state: Any, mask: Tensor | None) -> bool:
        """Whether TensorFlow's operation supports the settings."""
        return (
            keras.backend.backend() == "tensorflow"
            and self.compute_dtype == self.variable_dtype == "float32"
            and initial_state is None
            and mask is None
            and self.return_sequences
            and self.use_bias
            and not (self.go_backwards or self.return_state or self.stateful)
            and not (self.dropout or self.recurrent_dropout)
            and self.activation is keras.activations.tanh
            and self.recurrent_activation is keras.activations.sigmoid
        )


def set_fused(model: keras.layers.Layer, fused: bool) -> None:
    """Sets `fused` of all `LSTM` layers in a model, before it is compiled or traced."""
    for layer in _lstms(model):
        layer.fused = fused


@contextlib.contextmanager
def fusing(model: keras.layers.Layer) -> Iterator[None]:
    """Sets `fused` for everything traced inside the context, and restores it afterwards."""
    before = [(layer, layer.fused) for layer in _lstms(model)]
    set_fused(model, True)
    try:
        yield
    finally:
        for layer, fused in before:
            layer.fused = fused


@contextlib.contextmanager
def in_blocks() -> Iterator[None]:
    """Traces LSTM layers inside the context as in `unrolled_lstm`, for LiteRT."""
    token = _blocks.set(True)
    try:
        yield
    finally:
        _blocks.reset(token)


def _lstms(model: keras.layers.Layer) -> list[LSTM]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, LSTM)]


def _lstm(
    sequences: Tensor, weights: tuple[Tensor, ...], with_gradient: bool, alone: bool
) -> Tensor:
    """Maps `[batch, frame, feature]` to `[batch, frame, unit]`, with weights in Keras' layout."""
    import tensorflow as tf

    outputs = _over_positions(tf.transpose(sequences, [1, 0, 2]), weights, with_gradient, alone)
    shape = [*sequences.shape[:2], outputs.shape[-1]]
    return tf.ensure_shape(tf.transpose(outputs, [1, 0, 2]), shape)


def _over_positions(
    x: Tensor, weights: tuple[Tensor, ...], with_gradient: bool, alone: bool
) -> Tensor:
    """Maps `[frame, batch, feature]` to `[frame, batch, unit]`, with weights in Keras' layout."""
    import tensorflow as tf

    if _blocks.get():
        return unrolled_lstm.over_positions(x, *(tf.convert_to_tensor(part) for part in weights))

    # TensorFlow's order of the gates is input, cell, forget, output. Swapping the middle two is its
    # own inverse.
    def swap(weights: Tensor) -> Tensor:
        i, f, c, o = tf.split(weights, 4, axis=-1)
        return tf.concat([i, c, f, o], axis=-1)

    swapped = [swap(values) for values in weights]
    if with_gradient:
        run = tf.custom_gradient(_run)
        parts = _parts(x) if alone else [x]
        return tf.concat([run(part, *swapped) for part in parts], axis=1)
    return _run(x, *swapped)[0]


def _parts(x: Tensor) -> list[Tensor]:
    """Splits the batch of `[frame, batch, feature]` into parts that run in parallel.

    The product of a single frame is too small for several cores. With several parts, one runs while
    another waits.
    """
    import tensorflow as tf

    batch = x.shape[1]
    if batch is None:
        return [x]
    parts = min(cores.available_cores(), batch // _SMALLEST_PART)
    return [x] if parts < 2 else tf.split(x, _sizes(batch, parts), axis=1)


def _sizes(whole: int, parts: int) -> list[int]:
    return [whole * (k + 1) // parts - whole * k // parts for k in range(parts)]


def _run(x: Tensor, w: Tensor, u: Tensor, b: Tensor) -> tuple[Tensor, Any]:
    """LSTM on `[frame, batch, feature]`, and its gradient; the gates are in TensorFlow's order."""
    import tensorflow as tf

    frames, batch, units = tf.shape(x)[0], tf.shape(x)[1], u.shape[0]
    zero = tf.zeros([batch, units])
    peephole = tf.zeros([units])
    weights = {
        "w": tf.concat([w, u], axis=0), "b": b,
        "wci": peephole, "wcf": peephole, "wco": peephole, "use_peephole": False,
    }  # fmt: skip
    i, state, f, o, ci, co, h = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.cast(frames, tf.int64), x=x, cs_prev=zero, h_prev=zero,
        forget_bias=0.0, cell_clip=-1.0, **weights,
    )  # fmt: skip

    def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
        transposed = tf.transpose(u)

        def step(t: Tensor, dh: Tensor, dc: Tensor, gates: Any) -> tuple[Any, ...]:
            before = state[tf.maximum(t - 1, 0)] * tf.cast(t > 0, tf.float32)
            found = tf.raw_ops.LSTMBlockCellGrad(
                x=x[t], cs_prev=before, h_prev=zero, i=i[t], cs=state[t], f=f[t], o=o[t],
                ci=ci[t], co=co[t], cs_grad=dc, h_grad=dh + upstream[t], **weights,
            )  # fmt: skip
            owed = found.dicfo
            return t - 1, tf.matmul(owed, transposed), found.cs_prev_grad, gates.write(t, owed)

        gates = tf.TensorArray(tf.float32, frames, element_shape=[None, 4 * units])
        first = (frames - 1, zero, zero, gates)
        gates = tf.while_loop(lambda t, *_: t >= 0, step, first)[-1].concat()
        inputs = tf.reshape(x, [-1, x.shape[-1]])
        states = tf.reshape(h[:-1], [-1, units])
        return (
            tf.reshape(tf.matmul(gates, w, transpose_b=True), tf.shape(x)),
            tf.matmul(inputs, gates, transpose_a=True),
            tf.matmul(states, gates[batch:], transpose_a=True),
            # The sum over the rows as a product: `reduce_sum` over this axis is slow.
            tf.matmul(tf.ones([1, frames * batch]), gates)[0],
        )

    return h, gradient
