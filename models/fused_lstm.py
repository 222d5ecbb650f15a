"""Keras' LSTM layer with a training step of fewer, larger operations for processors.

TensorFlow's `BlockLSTM` runs all frames in one operation. The gradient here works out what each
gate is owed in a loop over the frames backwards, of one product of matrices each, and all that
does not hang on the frame after it, the gradients of weights and inputs, in one product for all
frames at once. What Keras does takes a tenth to a third longer (`python -m benchmarks.step`).
"""

from typing import Any

import keras

Tensor = Any


class LSTM(keras.layers.LSTM):
    """`keras.layers.LSTM`, the same in weights, settings and results, to rounding.

    Attributes:
        fused: whether training takes the fast way. It is for TensorFlow in float32 on a processor,
            whole sequences without a mask, and not under XLA, which does not know the operations:
            who compiles a model knows that, and switches it with `set_fused`. Inference always is
            Keras' own, so that a SavedModel holds nothing that another runtime lacks.
    """

    fused = False

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Tensor | None = None,
        training: bool | None = False,
    ) -> Tensor:
        if not (self.fused and training and self._plain(initial_state, mask)):
            return super().call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )
        cell = self.cell
        return _lstm(sequences, *(v.value for v in (cell.kernel, cell.recurrent_kernel, cell.bias)))

    def _plain(self, initial_state: Any, mask: Tensor | None) -> bool:
        """Whether the settings are those that TensorFlow's operation has."""
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
    """Switches `LSTM.fused` of all layers in a model, before it is compiled."""
    for layer in model._flatten_layers():
        if isinstance(layer, LSTM):
            layer.fused = fused


def _lstm(sequences: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor) -> Tensor:
    """`[batch, frame, feature]` to `[batch, frame, unit]`; weights as Keras' cell has them."""
    import tensorflow as tf

    units = recurrent_kernel.shape[0]

    # TensorFlow's order of the gates is input, cell, forget, output, and swapping the two in the
    # middle its own inverse.
    def swap(weights: Tensor) -> Tensor:
        i, f, c, o = tf.split(weights, 4, axis=-1)
        return tf.concat([i, c, f, o], axis=-1)

    @tf.custom_gradient
    def run(x: Tensor, w: Tensor, u: Tensor, b: Tensor) -> tuple[Tensor, Any]:
        frames, batch = tf.shape(x)[0], tf.shape(x)[1]
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
                return (
                    t - 1,
                    tf.matmul(found.dicfo, transposed),
                    found.cs_prev_grad,
                    gates.write(t, found.dicfo),
                )

            gates = tf.TensorArray(tf.float32, frames, element_shape=[None, 4 * units])
            gates = tf.while_loop(
                lambda t, *_: t >= 0, step, (frames - 1, zero, zero, gates)
            )[-1].concat()  # fmt: skip
            inputs = tf.reshape(x, [-1, x.shape[-1]])
            states = tf.reshape(h[:-1], [-1, units])
            return (
                tf.reshape(tf.matmul(gates, w, transpose_b=True), tf.shape(x)),
                tf.matmul(inputs, gates, transpose_a=True),
                tf.matmul(states, gates[batch:], transpose_a=True),
                # A sum over an axis of rows is slow.
                tf.matmul(tf.ones([1, frames * batch]), gates)[0],
            )

        return h, gradient

    outputs = run(tf.transpose(sequences, [1, 0, 2]), *map(swap, (kernel, recurrent_kernel, bias)))
    return tf.ensure_shape(tf.transpose(outputs, [1, 0, 2]), [*sequences.shape[:2], units])
