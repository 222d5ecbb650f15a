"""Other clusterings, on embeddings whose clusters are known."""

import numpy as np
import pytest

from export import evaluate
from export.evaluation import clusterers
from export.separation import loading
from pipeline import errors

RATE = 8000


@pytest.mark.parametrize("name", list(clusterers.CLUSTERERS))
@pytest.mark.parametrize("count", [2, 3])
def test_finds_the_clouds(name, count):
    rng = np.random.default_rng(count)
    truth = np.linalg.qr(rng.normal(size=(10, 10)))[0][:count]
    points = truth[rng.integers(count, size=800)] + 0.05 * rng.normal(size=(800, 10))
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    found = clusterers.CLUSTERERS[name](points.astype("float32"), count)
    closeness = found @ truth.T
    assert sorted(closeness.argmax(axis=1)) == list(range(count))
    assert closeness.max(axis=1).min() > 0.95


def test_mean_shift_finds_as_many_modes_as_there_are_voices():
    """Two voices whose clouds touch: the radius shrinks until they are two."""
    rng = np.random.default_rng(0)
    angles = np.concatenate([rng.normal(mean, 0.05, 200) for mean in (0.0, 0.5)])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = clusterers.mean_shift(points, 2)
    np.testing.assert_allclose(sorted(np.arctan2(found[:, 1], found[:, 0])), [0, 0.5], atol=0.05)
    assert clusterers.mean_shift(points[:1].repeat(5, axis=0), 2).shape == (2, 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder as the trainer's: embeddings are one point below 2 kHz and another above."""
    import keras

    from models import registry, separator

    network = registry.create("deep_clustering", units=4, dimension=3, hardness=1000.0)
    model = separator.Separator(network, -3.2, 0.9, -26.0, RATE, 2)
    model(np.zeros((1, 500), "float32"))
    dense = network.embedding_head.dense
    dense.kernel.assign(keras.ops.zeros_like(dense.kernel))
    bias = np.where(np.arange(129)[:, None] < 64, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    dense.bias.assign(bias.ravel())
    folder = tmp_path_factory.mktemp("clustered")
    model.save(folder / "best.keras")
    return folder


@pytest.mark.parametrize("name", list(clusterers.CLUSTERERS))
def test_separates_as_the_model_itself_where_the_clusters_are_plain(run, name, speechlike):
    mixture = np.stack([speechlike(RATE), speechlike(RATE, seed=6), np.zeros(RATE, "float32")])
    expected = loading.load(run).separate(mixture)
    clustered = clusterers.load(run, name)
    found = clustered.separate(mixture)
    assert clustered.name == "deep_clustering"
    np.testing.assert_allclose(found.sum(axis=1), mixture, atol=1e-6)
    for ours, theirs in zip(found, expected, strict=True):
        swapped = np.abs(ours[::-1] - theirs).max() < np.abs(ours - theirs).max()
        np.testing.assert_allclose(ours[::-1] if swapped else ours, theirs, atol=1e-5)
    spectrum = np.abs(np.fft.rfft(expected[0]))
    assert sorted(spectrum[:, :1500].sum(axis=1) > spectrum[:, 2500:].sum(axis=1)) == [False, True]


@pytest.mark.slow
def test_stands_in_the_evaluation_beside_the_model(run, small_dataset, tmp_path):
    summary = evaluate.evaluate(
        [str(run)], [str(small_dataset)], str(tmp_path), split="valid", max_mixtures=2,
        metric_names=["si_sdr"], workers=1, examples=0, clusterers=["kmeans", "mean_shift"],
    )  # fmt: skip
    systems = summary["datasets"][0]["systems"]
    own = systems[run.name]["si_sdr"]["all"]["mean"]
    for name in ("kmeans", "mean_shift"):
        mean = systems[f"{run.name}, {name}"]["si_sdr"]["all"]["mean"]
        assert mean == pytest.approx(own, abs=0.01)


def test_refuses_models_without_embeddings(saved, small_dataset, tmp_path):
    with pytest.raises(errors.UserError, match="deep_clustering"):
        evaluate.evaluate(
            [str(saved.run), str(saved.saved_model)], [str(small_dataset)], str(tmp_path),
            split="valid", workers=1, clusterers=["kmeans"],
        )  # fmt: skip
