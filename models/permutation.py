"""Which output is which voice: the assignment with the least loss over the whole utterance.

D. Yu, M. Kolbæk, Z.-H. Tan, J. Jensen: «Permutation invariant training of deep models for
speaker-independent multi-talker speech separation», ICASSP 2017.
"""

import itertools
from typing import Any

import numpy as np
from keras import ops

Tensor = Any

# All S! assignments are tried: 24 for four voices, and 40,320 for eight.
MAX_SOURCES = 6


def assign(losses: Tensor) -> Tensor:
    """The best assignment.

    Args:
        losses: of each output taken for each voice, `[batch, output, source]`, as many of both.

    Returns:
        int32 `[batch, output]`: the voice that each output is taken for; the first in the order of
        permutations among equals.
    """
    num_sources = losses.shape[-1]
    if losses.shape[-2] != num_sources:
        raise ValueError(f"{losses.shape[-2]} outputs cannot be assigned to {num_sources} voices")
    if num_sources > MAX_SOURCES:
        raise ValueError(f"at most {MAX_SOURCES} voices can be assigned, not {num_sources}")
    permutations = np.array(list(itertools.permutations(range(num_sources))), "int32")
    # [permutation, output, source], 1 where the output is taken for the voice.
    chosen = np.eye(num_sources, dtype="float32")[permutations]
    totals = ops.einsum("bos,pos->bp", ops.cast(losses, "float32"), ops.convert_to_tensor(chosen))
    return ops.take(ops.convert_to_tensor(permutations), ops.argmin(totals, axis=-1), axis=0)


def reorder(sources: Tensor, assignment: Tensor) -> Tensor:
    """What belongs to the voices, in the order of the outputs.

    Args:
        sources: `[batch, source, ...]`.
        assignment: `[batch, output]`, what `assign` gives.

    Returns:
        `[batch, output, ...]`.
    """
    # A product with zeros and ones: exact, and faster than a gather on every backend.
    chosen = ops.one_hot(assignment, sources.shape[1], dtype=sources.dtype)
    flat = ops.reshape(sources, (*ops.shape(sources)[:2], -1))
    return ops.reshape(ops.matmul(chosen, flat), ops.shape(sources))
