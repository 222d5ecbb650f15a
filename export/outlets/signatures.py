"""Builds the functions of an exported model from a separator.

SavedModels and in-process runs of a `.keras` file share these, so that they cannot disagree.
"""

import importlib.metadata
from typing import Any

import keras
import tensorflow as tf

from export.outlets import model_info
from models import registry, streaming
from pipeline import version

WAVEFORM = "serving_default"
MASKS = "masks"
STREAM = "stream"


def functions(separator: Any, batch: int | None = None) -> dict[str, Any]:
    """Builds the TensorFlow functions of a separator, by signature name.

    Args:
        separator: `models.separator.Separator`, or another Keras model that takes waveforms and
            has `num_sources`, `sample_rate` and `network`; if it has no method `masks`, there is
            no signature of that name.
        batch: number of mixtures per call, if fixed.

    Returns:
        Each is a `tf.function` with a fixed signature. `serving_default` maps `waveform`, float32
        `[batch, sample]`, to `{"sources": [batch, source, sample]}`. `masks` maps `log_magnitude`,
        float32 `[batch, frame, bin]`, to `{"masks": [batch, source, frame, bin]}`. `stream`, for
        causal networks, maps `waveform`, float32 `[1, k · hop]`, `length`, int32, `gain_db`,
        float32, and a dict of the state to `{"sources": [1, source, k · hop]}` with the new state,
        as in `models.streaming.StreamingSeparator.step`.
    """
    num_sources = separator.num_sources

    @tf.function(input_signature=[tf.TensorSpec([batch, None], tf.float32, name="waveform")])
    def separate(waveform: Any) -> dict[str, Any]:
        length = tf.shape(waveform)[1]
        # Empty input has no level and no spectrogram: separate a single zero and cut it off.
        missing = tf.cast(tf.equal(length, 0), tf.int32)
        padded = tf.pad(waveform, [[0, 0], [0, missing]])
        if batch is not None:
            # Converters cannot infer the shape after padding of unknown width.
            padded = tf.reshape(padded, [batch, -1])
        sources = separator(padded, training=False)[..., :length]
        sources.set_shape([batch, num_sources, None])
        return {"sources": sources}

    by_name = {WAVEFORM: separate}
    if hasattr(separator, "masks"):
        bins = getattr(separator.network, "num_bins", None)
        spec = tf.TensorSpec([batch, None, bins], tf.float32, name="log_magnitude")

        @tf.function(input_signature=[spec])
        def masks(log_magnitude: Any) -> dict[str, Any]:
            values = separator.masks(log_magnitude, training=False)
            values.set_shape([batch, num_sources, None, bins])
            return {"masks": values}

        by_name[MASKS] = masks
    follower = _follower(separator)
    if follower is not None:
        state_specs = {
            name: tf.TensorSpec(tensor.shape, tensor.dtype, name=name)
            for name, tensor in _stream_info(follower).state.items()
        }

        @tf.function(
            input_signature=[
                tf.TensorSpec([1, None], tf.float32, name="waveform"),
                tf.TensorSpec([], tf.int32, name="length"),
                tf.TensorSpec([], tf.float32, name="gain_db"),
                state_specs,
            ],
            autograph=False,
        )
        def stream(waveform: Any, length: Any, gain_db: Any, state: Any) -> dict[str, Any]:
            sources, state = follower.step(waveform, length, gain_db, state)
            state = {name: tf.ensure_shape(state[name], state_specs[name].shape) for name in state}
            return {"sources": tf.ensure_shape(sources, [1, num_sources, None]), **state}

        by_name[STREAM] = stream
    return by_name


def _follower(separator: Any) -> streaming.StreamingSeparator | None:
    """Returns the streaming separator, if the separator's network is causal."""
    try:
        return streaming.wrap(separator)
    except streaming.NotCausalError:
        return None


def _stream_info(follower: streaming.StreamingSeparator) -> model_info.StreamInfo:
    state = {
        name: model_info.Tensor(tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))
        for name, tensor in follower.initial_state(1).items()
    }
    return model_info.StreamInfo(follower.hop, follower.delay, state)


def in_float32(separator: Any) -> Any:
    """Returns the separator, or a float32 copy if it was trained in mixed precision.

    Half precision saves nothing on a CPU, and many CPUs lack kernels for it.
    """
    network = separator.network
    if network.dtype_policy.compute_dtype == "float32":
        return separator
    config = {**network.get_config(), "dtype": "float32"}
    twin = type(network).from_config(config)
    copy = type(separator).from_config({**separator.get_config(), "network": _serialise(twin)})
    copy.build((None, None))
    copy.network.set_weights(network.get_weights())
    return copy


def describe(separator: Any) -> model_info.ModelInfo:
    """Returns the model info of a separator."""
    network = separator.network
    names = {kind: name for name, kind in registry.NETWORKS.items()}
    config = separator.get_config()
    packages = ("keras", "tensorflow")
    follower = _follower(separator)
    return model_info.ModelInfo(
        name=names.get(type(network), type(network).__name__),
        sample_rate=separator.sample_rate,
        num_sources=separator.num_sources,
        constants={k: v for k, v in config.items() if isinstance(v, float)},
        network=_serialise(network),
        num_parameters=network.count_params(),
        signatures=tuple(sorted(functions(separator))),
        versions={
            "voices_apart": version.VERSION,
            **{package: importlib.metadata.version(package) for package in packages},
        },
        stream=None if follower is None else _stream_info(follower),
    )


def _serialise(network: Any) -> dict[str, Any]:
    return dict(keras.saving.serialize_keras_object(network))
