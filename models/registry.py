"""All networks by name. A new one is a file of its own and a line here.

Each is a `keras.Model` whose constructor has `num_outputs: int = 2`, for any number of voices, and
settings with defaults. Its class attribute `takes` says what it is handed and gives:
`"log_magnitude"`, normalised, `[batch, frame, bin]`, for masks `[batch, output, frame, bin]`, or
`"waveform"`, `[batch, sample]` at the level of the train split, for waveforms `[batch, output,
sample]`; both in float32 and of any length. A network that also gives voices on its way has, beside
`call`, a method `with_auxiliary(waveform, training)`: the waveforms and a list of such tensors. One
that is trained on a point for each bin has `embeddings(inputs, training)`, `[batch, frame, bin,
dimension]`, and if on its masks as well, `both(inputs, training)`: masks and embeddings.
"""

import inspect
from typing import Any

import keras

from models import (
    blstm,
    chimera,
    conv_tasnet,
    deep_clustering,
    ffn,
    lstm,
    sepreformer,
    tcn,
    tf_locoformer,
)
from pipeline import errors

NETWORKS: dict[str, type[keras.Model]] = {
    "ffn": ffn.FeedForward,
    "lstm": lstm.LongShortTermMemory,
    "blstm": blstm.BidirectionalLongShortTermMemory,
    "deep_clustering": deep_clustering.DeepClustering,
    "chimera": chimera.Chimera,
    "conv_tasnet": conv_tasnet.ConvTasNet,
    "sepreformer": sepreformer.SepReformer,
    "tcn": tcn.TemporalConvolution,
    "tf_locoformer": tf_locoformer.TFLocoformer,
}


def names() -> tuple[str, ...]:
    """The names, sorted."""
    return tuple(sorted(NETWORKS))


def settings(name: str) -> dict[str, Any]:
    """What can be set of a network: names and defaults of its constructor's arguments.

    Raises:
        UserError: no network has that name.
    """
    if name not in NETWORKS:
        raise errors.UserError(f"unknown network {name!r}; known are {', '.join(names())}")
    parameters = inspect.signature(NETWORKS[name].__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def create(name: str, /, *, dtype: str | None = None, **values: Any) -> keras.Model:
    """A new network with random weights.

    Args:
        name: one of `names()`.
        dtype: Keras' dtype policy, such as `mixed_bfloat16`; by default the global one.
        **values: the constructor's arguments.

    Raises:
        UserError: no network has that name, or it has no such setting, or not that value.
    """
    known = settings(name)
    for unknown in values.keys() - known.keys():
        raise errors.UserError(
            f"the network {name} has no setting {unknown!r}; it has {', '.join(known)}"
        )
    try:
        return NETWORKS[name](dtype=dtype, **values)
    except (TypeError, ValueError) as error:
        raise errors.UserError(f"the network {name} cannot be made: {error}") from error
