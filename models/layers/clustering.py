"""From embeddings to masks by k-means, on the device, with a fixed number of iterations.

S. P. Lloyd: "Least squares quantization in PCM", IEEE Transactions on Information Theory 28(2),
1982.
"""

from typing import Any

from keras import ops

from models.layers import recurrent

Tensor = Any

# In standard deviations below the loudest bin's log-magnitude: 40 dB if the deviation is 17 dB.
SPAN = 2.3
# Embeddings of two voices on the unit sphere are at most a squared distance of 4 apart.
HARDNESS = 5.0


def heard_bins(inputs: Tensor, span: float) -> Tensor:
    """Returns the bins that are loud enough to be used for finding the centres.

    Args:
        inputs: normalised log-magnitudes, `[batch, frame, bin]`.
        span: largest level below the mixture's loudest bin, in units of the inputs.

    Returns:
        float32 of 0 and 1, `[batch, frame, bin]`; 0 in padding.
    """
    inputs = ops.cast(inputs, "float32")
    padding = recurrent.flat_frames(inputs)[..., None]
    loudest = ops.max(ops.where(padding, -1e9, inputs), axis=(1, 2), keepdims=True)
    return ops.cast((inputs >= loudest - span) & ops.logical_not(padding), "float32")


def flatten(x: Tensor) -> Tensor:
    """Flattens frames and bins: `[batch, frame, bin, ...]` to `[batch, point, ...]`."""
    return ops.reshape(x, (ops.shape(x)[0], -1, *x.shape[3:]))


def find_centres(points: Tensor, weights: Tensor, count: int, iterations: int) -> Tensor:
    """Finds centres by k-means, without gradient.

    The initial centres are deterministic: first the point farthest from the mean of all points,
    then repeatedly the point farthest from those chosen.

    Args:
        points: `[batch, point, dimension]`.
        weights: weights of the points, `[batch, point]`; points of weight zero are ignored.
        count: number of centres.
        iterations: number of iterations of Lloyd's algorithm.

    Returns:
        float32 `[batch, centre, dimension]`, finite even if all weights are zero.
    """
    weights = ops.cast(weights, "float32")
    points = ops.stop_gradient(ops.cast(points, "float32"))

    def step(_: Any, centres: Tensor) -> Tensor:
        nearest = _argmax(-distances(points, centres))
        members = ops.one_hot(nearest, count, dtype="float32") * weights[..., None]
        sums = ops.matmul(ops.transpose(members, (0, 2, 1)), points)
        totals = ops.sum(members, axis=1)[..., None]
        # A centre without points stays where it is.
        return ops.where(totals > 0, sums / ops.where(totals > 0, totals, 1.0), centres)

    return ops.fori_loop(0, iterations, step, _spread(points, weights, count))


def distances(points: Tensor, centres: Tensor) -> Tensor:
    """Squared distances `[batch, point, centre]` of `[batch, ..., dimension]`, by one product."""
    products = ops.matmul(points, ops.transpose(centres, (0, 2, 1)))
    own = ops.sum(ops.square(points), axis=-1)[..., None]
    return own - 2 * products + ops.sum(ops.square(centres), axis=-1)[:, None]


def masks(embeddings: Tensor, centres: Tensor, hardness: float) -> Tensor:
    """Returns the share of each centre in each bin.

    Args:
        embeddings: `[batch, frame, bin, dimension]`.
        centres: `[batch, centre, dimension]`.
        hardness: factor of the squared distance; the larger, the closer to binary masks (soft
            k-means, Isik et al. 2016).

    Returns:
        float32 `[batch, centre, frame, bin]`, which sum to one over the centres.
    """
    points = flatten(ops.cast(embeddings, "float32"))
    shares = ops.softmax(-hardness * distances(points, centres), axis=-1)
    shape = ops.shape(embeddings)
    return ops.reshape(
        ops.transpose(shares, (0, 2, 1)), (shape[0], centres.shape[1], shape[1], shape[2])
    )


def _spread(points: Tensor, weights: Tensor, count: int) -> Tensor:
    """Chooses `count` points that are far from each other, `[batch, centre, dimension]`."""
    seen = weights > 0
    total = ops.sum(weights, axis=1)[:, None, None]
    mean = ops.sum(points * weights[..., None], axis=1, keepdims=True)
    chosen = [mean / ops.where(total > 0, total, 1.0)]
    nearest: Tensor = None
    for i in range(count):
        away = distances(points, chosen[-1])[..., 0]
        nearest = away if i < 2 else ops.minimum(nearest, away)
        index = _argmax(ops.where(seen, nearest, -1.0))
        chosen.append(ops.take_along_axis(points, index[:, None, None], axis=1))
    return ops.concatenate(chosen[1:], axis=1)


def _argmax(x: Tensor) -> Tensor:
    """Returns the first index of the maximum along the last axis, int32.

    The argmax of Keras distinguishes zeros by sign bit, an operation that mobile runtimes lack.
    """
    count = ops.shape(x)[-1]
    places = ops.arange(count, dtype="int32")
    largest = ops.max(x, axis=-1, keepdims=True)
    return ops.min(ops.where(x >= largest, places, count - 1), axis=-1)
