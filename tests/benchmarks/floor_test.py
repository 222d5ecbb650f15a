"""The floor's operations against those that are counted in the network's own graph."""

import pytest

from benchmarks import floor


@pytest.mark.parametrize(("network", "directions"), [("lstm", 1), ("blstm", 2)])
def test_backward_is_twice_forward_less_the_gradient_of_the_input(network, directions):
    from benchmarks import operations
    from models import registry

    model = registry.create(network, num_outputs=2, units=8, num_layers=2, num_bins=5)
    shape = (3, 7, 5)
    model.build(shape)
    forward = operations.multiply_adds(lambda x: model(x, training=False), shape)
    of_the_input = 3 * 7 * directions * 5 * 4 * 8
    shapes = floor.products(batch=3, frames=7, bins=5, units=8, layers=2, directions=directions)
    assert floor.operations(shapes) == 2 * (3 * forward - of_the_input)


def test_large_step_is_counted_by_hand():
    shapes = floor.products(batch=64, frames=100, bins=129, units=300, layers=2, directions=1)
    weights = (129 + 300) * 1200 + 600 * 1200 + 300 * 258
    assert floor.operations(shapes) == 2 * 6400 * (3 * weights - 129 * 1200)


def test_blocks_are_counted_as_in_the_networks_own_graph():
    from benchmarks import operations
    from models import registry

    model = registry.create("tcn", width=6, units=8, num_layers=2, repeats=2, num_bins=5)
    shape = (3, 8, 5)
    model.build(shape)
    forward = operations.multiply_adds(lambda x: model(x, training=False), shape)
    rows = 3 * 8 // 2
    depthwise = 4 * rows * 8 * 3
    of_the_input = rows * 10 * 6
    shapes = floor.products_of_blocks(rows=rows, bins=10, width=6, units=8, blocks=4)
    assert floor.operations(shapes) == 2 * (3 * (forward - depthwise) - of_the_input)
