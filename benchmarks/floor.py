"""The least time that a training step can take: its operations over the machine's rates.

Counted are the products of matrices forward and backward, by shape, and the activations of the
gates. Sums, Adam (seven numbers moved for each weight) and copies are left out: a floor may be too
low, never too high.
"""

import collections
from collections.abc import Mapping

Shape = tuple[int, int, int]


def products(
    *, batch: int, frames: int, bins: int, units: int, layers: int, directions: int
) -> dict[Shape, int]:
    """The products of matrices in a step, `[m, k] · [k, n]`, and how often each is done.

    What can be done for all frames at once is: what the input gives to the gates, the gradients of
    both weights and of the input. In the recurrence there is a product for each frame forward and
    one backward. The gradient of the first layer's input is not needed.
    """
    rows, gates = batch * frames, 4 * units
    found: dict[Shape, int] = collections.Counter()
    width = bins
    for layer in range(layers):
        found[rows, width, gates] += directions
        found[batch, units, gates] += directions * frames
        found[batch, gates, units] += directions * frames
        found[units, rows, gates] += directions
        found[width, rows, gates] += directions
        if layer:
            found[rows, gates, width] += directions
        width = directions * units
    outputs = 2 * bins
    found[rows, width, outputs] += 1
    found[rows, outputs, width] += 1
    found[width, rows, outputs] += 1
    return dict(found)


def products_of_blocks(
    *, rows: int, bins: int, width: int, units: int, blocks: int
) -> dict[Shape, int]:
    """Those of a `tcn` of two outputs over `rows` steps of `bins` values, likewise.

    Each layer has one product forward, one for its weights' gradient and one for its input's.
    """
    found: dict[Shape, int] = collections.Counter()
    layers = [
        (bins, width, 1),
        (width, units, blocks),
        (units, width, blocks),
        (width, 2 * bins, 1),
    ]
    for place, (inputs, outputs, count) in enumerate(layers):
        found[rows, inputs, outputs] += count
        found[inputs, rows, outputs] += count
        if place:
            found[rows, outputs, inputs] += count
    return dict(found)


def operations(shapes: Mapping[Shape, int]) -> int:
    """Multiplications and additions in all of them."""
    return sum(2 * m * k * n * count for (m, k, n), count in shapes.items())


def activations(*, batch: int, frames: int, units: int, layers: int, directions: int) -> int:
    """Sigmoids and hyperbolic tangents in a step: three gates, the cell's input, its output."""
    return 5 * units * batch * frames * layers * directions
