"""A lower bound for the time of a training step: its operations divided by the machine's rates.

It counts the matrix products of the forward and backward pass, by shape, and the activations of the
gates. It leaves out sums, Adam (seven numbers moved per weight) and copies: a floor may be too low,
but never too high.
"""

import collections
from collections.abc import Mapping

Shape = tuple[int, int, int]


def products(
    *, batch: int, frames: int, bins: int, units: int, layers: int, directions: int
) -> dict[Shape, int]:
    """Counts the matrix products in a step, `[m, k] · [k, n]`, by shape.

    Some products cover all frames at once: the input's contribution to the gates, and the gradients
    of both weights and of the input. The recurrence has one product per frame in each direction,
    forward and backward. The gradient of the first layer's input is not needed.
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
    """Counts the matrix products of a `tcn` with two outputs over `rows` steps of `bins` values.

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
    """Returns the number of multiplications and additions in all of them."""
    return sum(2 * m * k * n * count for (m, k, n), count in shapes.items())


def activations(*, batch: int, frames: int, units: int, layers: int, directions: int) -> int:
    """Counts the sigmoids and tanhs in a step: three gates, the cell's input, its output."""
    return 5 * units * batch * frames * layers * directions
