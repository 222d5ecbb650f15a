"""FLAC decoded in TensorFlow's graph, by tensorflow-io."""

import functools
from typing import Any

from pipeline import errors
from trainer.data import tfio


def decode(data: Any) -> Any:
    """Decodes FLAC in a TensorFlow graph, such as in `tf.data.Dataset.map`.

    The samples are those that are stored, bit by bit (16 bits a sample). It serves input pipelines
    that read files which no Beam job has seen. No command of this package does: where Python can
    run, soundfile is several times as fast (`benchmarks/flac.py`), and shards are not compressed.

    Args:
        data: the file's bytes, a string tensor.

    Returns:
        int16 `[sample, channel]`.

    Raises:
        UserError: tensorflow-io is not there, or does not fit this TensorFlow.
    """
    import tensorflow as tf

    samples = _audio().decode_flac(data, dtype=tf.int16)
    return tf.ensure_shape(samples, [None, None])


@functools.cache
def _audio() -> Any:
    """The package's functions for audio, once they have been seen to work."""
    import tensorflow as tf

    audio = tfio.load("decoding FLAC in the graph").audio
    try:
        audio.decode_flac(b"", dtype=tf.int16)
    except tf.errors.OpError:
        # It has looked, and nothing is no FLAC.
        return audio
    except (NotImplementedError, AttributeError) as error:
        raise errors.UserError(f"{tfio.versions()} cannot decode FLAC; {tfio.REMEDY}") from error
    return audio
