"""FLAC decoding in TensorFlow's graph, by tensorflow-io."""

import functools
from typing import Any

from pipeline import errors
from trainer.data import tfio


def decode(data: Any) -> Any:
    """Decodes FLAC in a TensorFlow graph, such as in `tf.data.Dataset.map`.

    The samples equal the stored ones bit for bit (16 bits per sample). This is for input pipelines
    that read files directly, without a Beam job. No command of this package needs it: shards are
    not compressed, and where Python can run, soundfile is several times as fast
    (`benchmarks/flac.py`).

    Args:
        data: the file's bytes, a string tensor.

    Returns:
        int16 `[sample, channel]`.

    Raises:
        UserError: tensorflow-io is not installed, or is incompatible with this TensorFlow.
    """
    import tensorflow as tf

    samples = _audio().decode_flac(data, dtype=tf.int16)
    return tf.ensure_shape(samples, [None, None])


@functools.cache
def _audio() -> Any:
    """Returns the package's audio functions after checking that they work."""
    import tensorflow as tf

    audio = tfio.load("decoding FLAC in the graph").audio
    try:
        audio.decode_flac(b"", dtype=tf.int16)
    except tf.errors.OpError:
        # Empty input is rejected as expected: decoding works.
        return audio
    except (NotImplementedError, AttributeError) as error:
        raise errors.UserError(f"{tfio.versions()} cannot decode FLAC; {tfio.REMEDY}") from error
    return audio
