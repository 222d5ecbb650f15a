"""The LSTM as straight code for a block of frames, in a loop over the blocks: the form for LiteRT.

In every iteration of a loop LiteRT copies what the loop carries and all outputs so far, and it
starts its kernels (XNNPACK) anew. An iteration therefore processes many frames. Within it, one
product per frame multiplies input and state at once, so that the loop carries the input and not the
four times larger gates.

Each product of the code keeps its own copy of the weights in memory. Large weights would no longer
fit in the processor's cache, and with a single row all time goes into reading them. In these cases
only a few frames are straight code, in a loop within a loop, and the input is multiplied outside of
both, in one product for all frames.
"""

from typing import Any

Tensor = Any

# Up to this number of frames no loop is needed.
_STRAIGHT = 64
# Frames in an iteration.
_BLOCK = 32
# The same of the inner and the outer loop with large weights or a single row.
_FEW, _MANY = 4, 64
# Recurrent weights from this size on are large: 1 MB.
_LARGE = 2**18


def over_positions(x: Tensor, w: Tensor, u: Tensor, b: Tensor) -> Tensor:
    """Runs an LSTM with weights in Keras' layout, with TensorFlow operations.

    Args:
        x: `[frame, row, feature]`; the numbers of frames and rows may be unknown.
        w: `[feature, 4 · unit]`, for the input, forget, cell and output gate.
        u: `[unit, 4 · unit]`.
        b: `[4 · unit]`.

    Returns:
        `[frame, row, unit]`.
    """
    import tensorflow as tf

    frames, rows, units = x.shape[0], x.shape[1], u.shape[0]
    zero = tf.zeros([tf.shape(x)[1], units])
    if frames is not None and frames <= _STRAIGHT:
        both = tf.concat([w, u], axis=0)
        return _straight(tf.unstack(x), both, b, zero, zero)[0]
    if rows != 1 and units * 4 * units < _LARGE:
        both = tf.concat([w, u], axis=0)

        def run(start: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
            return _straight(_block(x, start, _BLOCK), both, b, h, c)

        outputs, _, _ = _loop(run, tf.shape(x)[0], _BLOCK, zero, zero, rows)
    else:
        gates = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), w) + b
        gates = tf.reshape(gates, [tf.shape(x)[0], tf.shape(x)[1], 4 * units])

        def run(start: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
            def run_few(more: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
                found = []
                for part in _block(gates, start + more, _FEW):
                    h, c = _advance(part + tf.matmul(h, u), c)
                    found.append(h)
                return tf.stack(found), h, c

            return _loop(run_few, _MANY, _FEW, h, c, rows)

        outputs, _, _ = _loop(run, tf.shape(x)[0], _MANY, zero, zero, rows)
    # The last block may go beyond the end. LiteRT copies slices of this kind fast.
    outputs = tf.slice(outputs, [0, 0, 0], [tf.shape(x)[0], tf.shape(x)[1], units])
    return tf.ensure_shape(outputs, [frames, rows, units])


def _straight(
    frames: list[Tensor], both: Tensor, b: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of some frames `[row, feature]`, and the state after them, without a loop."""
    import tensorflow as tf

    found = []
    for frame in frames:
        h, c = _advance(tf.matmul(tf.concat([frame, h], axis=-1), both) + b, c)
        found.append(h)
    return tf.stack(found), h, c


def _advance(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Output and new cell state, from the sums of the gates and the old cell state."""
    import tensorflow as tf

    i, f, candidate, o = tf.split(gates, 4, axis=-1)
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(candidate)
    return tf.sigmoid(o) * tf.tanh(c), c


def _block(x: Tensor, start: Tensor, size: int) -> list[Tensor]:
    """Frames from `start` on; beyond the end, the last one is repeated."""
    import tensorflow as tf

    numbers = tf.minimum(start + tf.range(size), tf.shape(x)[0] - 1)
    return tf.unstack(tf.gather(x, numbers), size)


def _loop(
    run: Any, frames: Any, size: int, h: Tensor, c: Tensor, rows: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs blocks until there are at least so many frames: their outputs and the last state.

    Args:
        run: maps the number of the first frame and the state (`h` and `c`) to the block's outputs
            and the new state.
        frames: how many.
        size: frames in a block.
        h: `[row, unit]`.
        c: `[row, unit]`.
        rows: number of rows, or None.
    """
    import tensorflow as tf

    units = h.shape[-1]

    def step(start: Tensor, h: Tensor, c: Tensor, outputs: Tensor) -> tuple[Tensor, ...]:
        found, h, c = run(start, h, c)
        return start + size, h, c, tf.concat([outputs, found], axis=0)

    state = tf.TensorShape([rows, units])
    shapes = tf.TensorShape([]), state, state, tf.TensorShape([None, rows, units])
    first = (0, h, c, tf.zeros([0, tf.shape(h)[0], units]))
    _, h, c, outputs = tf.while_loop(
        lambda start, *_: start < frames, step, first, shape_invariants=shapes
    )
    return outputs, h, c
