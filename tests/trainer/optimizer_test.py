"""The learning rate over the steps, weight decay and averages, against formulas in NumPy."""

import keras
import numpy as np
import pytest

from trainer import config, optimizer


def _variables():
    kernel = keras.Variable(np.full((3, 2), 2.0, "float32"), name="kernel")
    bias = keras.Variable(np.full(2, 2.0, "float32"), name="bias")
    return kernel, bias


def _make(variables, steps=5, **settings):
    return optimizer.make(config.Config(clip_norm=0.0, **settings), steps, variables)


def _rates(count, **settings):
    """The learning rate of each step: Adam moves by it where the gradient is always the same."""
    (bias,) = _variables()[1:]
    made = _make([bias], **settings)
    values, said = [bias.numpy()[0]], []
    for _ in range(count):
        made.apply([keras.ops.ones(2)], [bias])
        values.append(bias.numpy()[0])
        said.append(made.last_rate())
    np.testing.assert_allclose(said, -np.diff(values), atol=2e-5)
    return -np.diff(values)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_warm_up_rises_to_the_rate_and_stays(weight_decay):
    settings = {"schedule": "plateau", "learning_rate": 0.1, "weight_decay": weight_decay}
    rates = _rates(8, warmup_steps=4, **settings)
    np.testing.assert_allclose(rates, 0.1 * np.minimum(np.arange(1, 9) / 4, 1), rtol=1e-4)
    np.testing.assert_allclose(_rates(3, **settings), 0.1, rtol=1e-4)


def test_warm_up_leaves_the_rate_to_the_plateau():
    (bias,) = _variables()[1:]
    made = _make([bias], schedule="plateau", learning_rate=0.1, warmup_steps=3)
    made.apply([keras.ops.ones(2)], [bias])
    assert float(made.learning_rate) == pytest.approx(0.1)
    made.learning_rate = 0.05
    values = [bias.numpy()[0]]
    for _ in range(3):
        made.apply([keras.ops.ones(2)], [bias])
        values.append(bias.numpy()[0])
    np.testing.assert_allclose(-np.diff(values), [0.05 * 2 / 3, 0.05, 0.05], rtol=1e-4)


@pytest.mark.parametrize("warmup", [0, 5])
def test_cosine_ends_at_zero_after_all_epochs(warmup):
    rates = _rates(
        20, steps=5, schedule="cosine", epochs=4, learning_rate=0.1, warmup_steps=warmup
    )  # fmt: skip
    if warmup:
        np.testing.assert_allclose(rates[:warmup], 0.1 * np.arange(warmup) / warmup, atol=1e-5)
    progress = np.arange(20 - warmup) / (20 - warmup)
    np.testing.assert_allclose(rates[warmup:], 0.05 * (1 + np.cos(np.pi * progress)), atol=1e-4)


def test_weight_decay_leaves_gains_and_biases_alone():
    kernel, bias = _variables()
    made = _make([kernel, bias], weight_decay=0.1, learning_rate=0.5, schedule="constant")
    for _ in range(3):
        made.apply([keras.ops.zeros((3, 2)), keras.ops.zeros(2)], [kernel, bias])
    np.testing.assert_allclose(kernel, 2.0 * (1 - 0.1 * 0.5) ** 3, rtol=1e-5)
    np.testing.assert_array_equal(bias, 2.0)


def test_the_average_is_the_exponential_moving_one():
    kernel, _ = _variables()
    made = _make([kernel], ema=0.9, learning_rate=0.1, schedule="constant")
    values = []
    for step in range(5):
        made.apply([keras.ops.full((3, 2), (-1.0) ** step + 0.5)], [kernel])
        values.append(kernel.numpy())
    expected = values[0]
    for value in values[1:]:
        expected = 0.9 * expected + 0.1 * value
    np.testing.assert_allclose(made._model_variables_moving_average[0], expected, rtol=1e-5)


def test_all_gradients_together_are_clipped():
    """Of Adam's steps only the first moments show it; so by those."""
    kernel, bias = _variables()
    made = optimizer.make(config.Config(clip_norm=1.0), 5, [kernel, bias])
    gradients = [np.full((3, 2), 3.0, "float32"), np.full(2, 4.0, "float32")]
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
    made.apply([keras.ops.convert_to_tensor(g) for g in gradients], [kernel, bias])
    for momentum, gradient in zip(made._momentums, gradients, strict=True):
        np.testing.assert_allclose(momentum, 0.1 * gradient / norm, rtol=1e-5)


def test_newton_schulz_keeps_singular_vectors_and_evens_out_singular_values():
    random = np.random.default_rng(0)
    for shape in ((3, 40, 24), (2, 24, 40)):
        matrices = random.normal(size=shape).astype("float32")
        u, _, v = np.linalg.svd(matrices, full_matrices=False)
        found = keras.ops.convert_to_numpy(optimizer.orthogonalised(matrices))
        # In the base of the singular vectors it is a diagonal matrix.
        inside = np.swapaxes(u, -1, -2) @ found @ np.swapaxes(v, -1, -2)
        diagonal = np.diagonal(inside, axis1=-2, axis2=-1)
        assert diagonal.min() > 0.6
        assert diagonal.max() < 1.3
        rest = inside - np.eye(24) * diagonal[:, None]
        assert np.abs(rest).max() < 1e-3


def test_muon_moves_each_gate_and_each_band_by_the_nearest_orthogonal_matrix():
    """The first momentum is the gradient, so that steps follow from its singular vectors alone."""
    random = np.random.default_rng(1)
    lstm = keras.layers.LSTM(12)
    lstm.build((None, None, 9))
    kernel, recurrent, bias = lstm.trainable_variables
    bands = keras.Variable(random.normal(size=(3, 10, 8)), dtype="float32", name="kernel")
    variables = [kernel, recurrent, bias, bands]
    before = [v.numpy() for v in variables]
    gradients = [random.normal(size=v.shape).astype("float32") for v in variables]
    gradients[2] += np.sign(gradients[2])  # Adam's steps are smaller near zero.
    made = _make(variables, optimizer="muon", learning_rate=0.1, schedule="constant")
    made.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
    steps = [b - v.numpy() for b, v in zip(before, variables, strict=True)]
    np.testing.assert_allclose(steps[2], 0.1 * np.sign(gradients[2]), rtol=1e-3)
    pairs = [(steps[3], gradients[3])]
    pairs += [
        (np.stack(np.split(step, 4, axis=1)), np.stack(np.split(gradient, 4, axis=1)))
        for step, gradient in zip(steps[:2], gradients[:2], strict=True)
    ]
    for step, gradient in pairs:
        u, _, v = np.linalg.svd(gradient, full_matrices=False)
        expected = 0.1 * 0.2 * np.sqrt(max(step.shape[-2:])) * (u @ v)
        # The singular values of a step are only about equal.
        for found, wanted in zip(step, expected, strict=True):
            assert np.linalg.norm(found - wanted) < 0.3 * np.linalg.norm(wanted)


def test_muon_leaves_the_layers_of_masks_and_taps_to_adam():
    mask = keras.Variable(np.ones((9, 8), "float32"), name="mask_kernel")
    taps = keras.Variable(np.ones((3, 8), "float32"), name="taps")
    random = np.random.default_rng(2)
    gradients = [random.choice([-3, -1, 1, 3], v.shape).astype("float32") for v in (mask, taps)]
    made = _make([mask, taps], optimizer="muon", learning_rate=0.1, schedule="constant")
    made.apply([keras.ops.convert_to_tensor(g) for g in gradients], [mask, taps])
    for variable, gradient in zip((mask, taps), gradients, strict=True):
        np.testing.assert_allclose(variable, 1 - 0.1 * np.sign(gradient), rtol=1e-3)
