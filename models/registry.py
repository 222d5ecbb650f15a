"""All networks by name. A new network is one file and one line here.

Each is a `keras.Model` whose constructor has `num_outputs: int = 2`, for any number of voices, and
settings with defaults. The class attribute `takes` names the input: `"log_magnitude"` (normalised
log-magnitudes `[batch, frame, bin]` to masks `[batch, output, frame, bin]`) or `"waveform"`
(`[batch, sample]` at the level of the train split to waveforms `[batch, output, sample]`). Inputs
and outputs are float32 and of any length. Three methods are optional:
`with_auxiliary(waveform, training)` gives the waveforms and a list of auxiliary estimates of the
same shape; `embeddings(inputs, training)`, for networks trained on embeddings, gives
`[batch, frame, bin, dimension]`; `both(inputs, training)`, for networks trained on masks and
embeddings, gives both.
"""

import inspect
from typing import Any

import keras

from models import (
    band_split,
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
    "band_split": band_split.BandSplit,
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
    """Returns the names, sorted."""
    return tuple(sorted(NETWORKS))


def settings(name: str) -> dict[str, Any]:
    """Returns the settings of a network: its constructor's argument names and defaults.

    Raises:
        UserError: no network has that name.
    """
    if name not in NETWORKS:
        raise errors.UserError(f"unknown network {name!r}; known are {', '.join(names())}")
    parameters = inspect.signature(NETWORKS[name].__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def create(name: str, /, *, dtype: str | None = None, **values: Any) -> keras.Model:
    """Returns a new network with random weights.

    Args:
        name: one of `names()`.
        dtype: Keras dtype policy, such as `mixed_bfloat16`; by default the global one.
        **values: the constructor's arguments.

    Raises:
        UserError: no network has that name, or a setting or its value is invalid.
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
