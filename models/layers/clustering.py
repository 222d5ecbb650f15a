"""From embeddings to masks by k-means, in a fixed number of steps, on the device.

S. P. Lloyd: «Least squares quantization in PCM», IEEE Transactions on Information Theory 28(2),
1982.
"""

from typing import Any

from keras import ops

from models.layers import recurrent

Tensor = Any

# Standard deviations of log-magnitudes below the loudest bin: 40 dB where the deviation is 17 dB.
SPAN = 2.3
# Points on a sphere that belong to two voices are at most a squared distance of 4 apart.
HARDNESS = 5.0


def heard_bins(inputs: Tensor, span: float) -> Tensor:
    """The bins that are loud enough to say where the voices are.

    Args:
        inputs: normalised log-magnitudes, `[batch, frame, bin]`.
        span: how far below the mixture's loudest bin the softest may be, in the inputs' unit.

    Returns:
        float32 of 0 and 1, `[batch, frame, bin]`; 0 in padding.
    """
    inputs = ops.cast(inputs, "float32")
    padding = recurrent.flat_frames(inputs)[..., None]
    loudest = ops.max(ops.where(padding, -1e9, inputs), axis=(1, 2), keepdims=True)
    return ops.cast((inputs >= loudest - span) & ops.logical_not(padding), "float32")


def flatten(x: Tensor) -> Tensor:
    """The frames' bins in one row: `[batch, frame, bin, ...]` to `[batch, point, ...]`."""
    return ops.reshape(x, (ops.shape(x)[0], -1, *x.shape[3:]))


def find_centres(points: Tensor, weights: Tensor, count: int, iterations: int) -> Tensor:
    """K-means: means of the points that are nearest to them, without gradient.

    The start is the same for the same points: the one that is farthest from the mean of all, then
    again and again the one that is farthest from those chosen.

    Args:
        points: `[batch, point, dimension]`.
        weights: of the points, `[batch, point]`; those of weight zero are not seen.
        count: centres to find.
        iterations: of Lloyd's.

    Returns:
        float32 `[batch, centre, dimension]`, finite also where nothing has weight.
    """
    weights = ops.cast(weights, "float32")
    points = ops.stop_gradient(ops.cast(points, "float32"))

    def step(_: Any, centres: Tensor) -> Tensor:
        nearest = _argmax(-distances(points, centres))
        members = ops.one_hot(nearest, count, dtype="float32") * weights[..., None]
        sums = ops.matmul(ops.transpose(members, (0, 2, 1)), points)
        totals = ops.sum(members, axis=1)[..., None]
        # A centre that has lost all its points stays where it is.
        return ops.where(totals > 0, sums / ops.where(totals > 0, totals, 1.0), centres)

    return ops.fori_loop(0, iterations, step, _spread(points, weights, count))


def distances(points: Tensor, centres: Tensor) -> Tensor:
    """Squared distances `[batch, point, centre]` of `[batch, ..., dimension]`, by one product."""
    products = ops.matmul(points, ops.transpose(centres, (0, 2, 1)))
    own = ops.sum(ops.square(points), axis=-1)[..., None]
    return own - 2 * products + ops.sum(ops.square(centres), axis=-1)[:, None]


def masks(embeddings: Tensor, centres: Tensor, hardness: float) -> Tensor:
    """What each centre has of each bin.

    Args:
        embeddings: `[batch, frame, bin, dimension]`.
        centres: `[batch, centre, dimension]`.
        hardness: times the squared distance: the greater, the nearer to binary masks
            (the soft k-means of Isik et al. 2016).

    Returns:
        float32 `[batch, centre, frame, bin]`, adding up to one over the centres.
    """
    points = flatten(ops.cast(embeddings, "float32"))
    shares = ops.softmax(-hardness * distances(points, centres), axis=-1)
    shape = ops.shape(embeddings)
    return ops.reshape(
        ops.transpose(shares, (0, 2, 1)), (shape[0], centres.shape[1], shape[1], shape[2])
    )


def _spread(points: Tensor, weights: Tensor, count: int) -> Tensor:
    """`count` points that are far from each other, `[batch, centre, dimension]`."""
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
    """The first of the largest along the last axis, int32.

    Keras' own tells zeros apart by their bits, for which runtimes of phones have no operation.
    """
    count = ops.shape(x)[-1]
    places = ops.arange(count, dtype="int32")
    largest = ops.max(x, axis=-1, keepdims=True)
    return ops.min(ops.where(x >= largest, places, count - 1), axis=-1)
