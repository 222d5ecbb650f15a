"""A dilated depthwise convolution block, fused for faster training on CPUs.

Layer by layer, a training step of such a block reads and writes its activations dozens of times, so
the elementwise operations take as long as the matrix products. Here, XLA compiles everything
between two matrix products to one loop, forwards and backwards, in float32 whatever the dtype of
the products. Gain and bias of the normalisation are folded into the product that follows.

It is for training with TensorFlow only: see `FusedBlock`.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras

Tensor = Any

# The epsilon of `keras.layers.LayerNormalization`.
EPSILON = 1e-3


class FusedBlock(keras.layers.Layer):
    """A layer with a fused implementation for training.

    Attributes:
        fused: whether to use it in training. It is for TensorFlow on a CPU without `jit_compile`,
            which would compile the whole step instead. The trainer switches it on with `set_fused`
            where this holds.
    """

    fused = False

    def takes_the_fast_way(self, training: bool | None) -> bool:
        """Whether a call uses `convolution`."""
        return bool(self.fused and training and keras.backend.backend() == "tensorflow")


def set_fused(model: keras.layers.Layer, fused: bool) -> None:
    """Sets `fused` of all `FusedBlock` layers in a model, before it is compiled or traced."""
    for layer in model._flatten_layers():
        if isinstance(layer, FusedBlock):
            layer.fused = fused


def convolution(
    x: Tensor,
    norm: tuple[Tensor, Tensor],
    widen: tuple[Tensor, Tensor],
    taps: tuple[Tensor, Tensor],
    narrow: tuple[Tensor, Tensor],
    dilation: int,
    causal: bool,
) -> Tensor:
    """Normalisation, a wider dense layer, a dilated depthwise convolution, and a dense layer back.

    Both inner layers have SiLU as activation.

    Args:
        x: `[batch, step, width]`, in the dtype of the products.
        norm: gain and bias `[width]` of the normalisation over the channels, float32 like all
            weights.
        widen: kernel `[width, unit]` and bias.
        taps: kernel `[tap, unit]` of the convolution and bias.
        narrow: kernel `[unit, width]` and bias.
        dilation: distance between taps, in steps.
        causal: whether to use only past steps; otherwise as many on either side.

    Returns:
        The same shape and type as `x`.
    """
    import tensorflow as tf

    gain, shift, kernel, bias, taps_kernel, taps_bias, narrow_kernel, narrow_bias = (
        tf.cast(tf.convert_to_tensor(weights), tf.float32)
        for weights in (*norm, *widen, *taps, *narrow)
    )
    bias = bias + tf.linalg.matvec(kernel, shift, transpose_a=True)
    kernel = tf.cast(gain[:, None] * kernel, x.dtype)
    narrow_kernel = tf.cast(narrow_kernel, x.dtype)
    reach = (taps_kernel.shape[0] - 1) * dilation
    before = reach if causal else reach // 2
    spread = dilation, before, reach - before
    run = tf.custom_gradient(lambda *values: _run(spread, *values))
    found = run(x, kernel, bias, taps_kernel, taps_bias, narrow_kernel, narrow_bias)
    return tf.ensure_shape(found, x.shape)


def normalise(x: Tensor) -> Tensor:
    """Layer normalisation over the last axis without gain and bias, in one pass each way.

    Fold them into the product that follows. TensorFlow only.

    Args:
        x: `[..., channel]`.

    Returns:
        The same shape and type.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def run(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        loops = _loops()
        normal, scale = loops["normalise"](x)
        return normal, lambda owed: loops["normalise_back"](owed, normal, scale)

    return tf.ensure_shape(run(x), x.shape)


def _run(
    spread: tuple[int, int, int],
    x: Tensor,
    widen: Tensor,
    bias: Tensor,
    taps: Tensor,
    taps_bias: Tensor,
    narrow: Tensor,
    narrow_bias: Tensor,
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
    """The block and its gradient; `spread` is the dilation, and the steps seen before and after."""
    import tensorflow as tf

    loops = _loops()
    normal, scale = loops["normalise"](x)
    wide = _product(normal, widen)
    heard, hidden = loops["hear"](wide, bias, taps, taps_bias, *spread)
    outputs = _product(hidden, narrow) + tf.cast(narrow_bias, x.dtype)

    def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
        owed = _product(upstream, narrow, transpose_b=True)
        owed, sums = loops["hear_back"](owed, wide, bias, heard, taps, *spread)
        *of_taps, of_taps_bias, of_bias = tf.unstack(tf.reduce_sum(sums, axis=1))
        of_narrow_bias = tf.reduce_sum(loops["sums"](upstream), axis=0)
        of_x = loops["normalise_back"](_product(owed, widen, transpose_b=True), normal, scale)
        return (
            of_x,
            _over_steps(normal, owed),
            of_bias,
            tf.stack(of_taps),
            of_taps_bias,
            _over_steps(hidden, upstream),
            of_narrow_bias,
        )

    return outputs, gradient


def _flat(x: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.reshape(x, [-1, x.shape[-1]])


def _product(x: Tensor, kernel: Tensor, transpose_b: bool = False) -> Tensor:
    """`[batch, step, channel]` times a matrix."""
    import tensorflow as tf

    found = tf.matmul(_flat(x), kernel, transpose_b=transpose_b)
    return tf.reshape(found, [*tf.unstack(tf.shape(x)[:2]), found.shape[-1]])


def _over_steps(x: Tensor, y: Tensor) -> Tensor:
    """Sums the outer products over batch and steps, `[channel of x, channel of y]`."""
    import tensorflow as tf

    return tf.matmul(_flat(x), _flat(y), transpose_a=True)


@functools.cache
def _loops() -> dict[str, Callable[..., Any]]:
    """The elementwise parts between the products, each compiled to one or a few loops."""
    import tensorflow as tf

    float32 = tf.float32

    def sigmoid(x: Tensor) -> Tensor:
        # XLA has a fast tanh for CPUs, but no fast logistic function.
        return 0.5 + 0.5 * tf.tanh(0.5 * x)

    def slope(x: Tensor, s: Tensor) -> Tensor:
        """Derivative of SiLU where the sigmoid is `s`."""
        return s * (1 + x * (1 - s))

    def parts(x: Tensor, taps: int, dilation: int, before: int, after: int) -> list[Tensor]:
        """Returns the inputs of each tap."""
        padded, steps = tf.pad(x, [[0, 0], [before, after], [0, 0]]), tf.shape(x)[1]
        return [padded[:, k * dilation : k * dilation + steps] for k in range(taps)]

    def normalise(x: Tensor) -> tuple[Tensor, Tensor]:
        centred = tf.cast(x, float32)
        centred -= tf.reduce_mean(centred, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        scale = tf.math.rsqrt(variance + EPSILON)
        return tf.cast(centred * scale, x.dtype), scale

    def normalise_back(owed: Tensor, normal: Tensor, scale: Tensor) -> Tensor:
        owed, normal, dtype = tf.cast(owed, float32), tf.cast(normal, float32), owed.dtype
        along = tf.reduce_mean(owed * normal, -1, keepdims=True)
        owed -= tf.reduce_mean(owed, -1, keepdims=True) + normal * along
        return tf.cast(scale * owed, dtype)

    def hear(
        wide: Tensor, bias: Tensor, taps: Tensor, taps_bias: Tensor,
        dilation: int, before: int, after: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        x = tf.cast(wide, float32) + bias
        heard_by = parts(x * sigmoid(x), taps.shape[0], dilation, before, after)
        heard = sum(part * taps[k] for k, part in enumerate(heard_by)) + taps_bias
        return tf.cast(heard, wide.dtype), tf.cast(heard * sigmoid(heard), wide.dtype)

    def hear_back(
        owed: Tensor, wide: Tensor, bias: Tensor, heard: Tensor, taps: Tensor,
        dilation: int, before: int, after: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Returns the gradients of `wide`, and of the taps, their bias and `bias` (batch sums)."""
        count, dtype = taps.shape[0], owed.dtype
        y = tf.cast(heard, float32)
        owed = tf.cast(owed, float32) * slope(y, sigmoid(y))
        # In the backward pass the taps extend to the opposite side.
        reached = parts(owed, count, dilation, after, before)[::-1]
        x = tf.cast(wide, float32) + bias
        s = sigmoid(x)
        back = sum(part * taps[k] for k, part in enumerate(reached)) * slope(x, s)
        products = [part * owed for part in parts(x * s, count, dilation, before, after)]
        sums = tf.stack([tf.reduce_sum(each, axis=0) for each in (*products, owed, back)])
        return tf.cast(back, dtype), sums

    def sums(x: Tensor) -> Tensor:
        return tf.reduce_sum(tf.cast(x, float32), axis=0)

    return {
        f.__name__: tf.function(f, jit_compile=True, autograph=False)
        for f in (normalise, normalise_back, hear, hear_back, sums)
    }
