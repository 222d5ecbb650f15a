"""Assignment of outputs to voices with the least loss over the whole utterance (PIT).

D. Yu, M. Kolbæk, Z.-H. Tan, J. Jensen: "Permutation invariant training of deep models for
speaker-independent multi-talker speech separation", ICASSP 2017.
"""

import functools
import itertools
from typing import Any

import numpy as np
from keras import ops

Tensor = Any

# Up to this many voices all assignments (at most six) are tried, in one matrix product.
_FEW = 3
# For more voices, dynamic programming over sets of voices is used: 256 sets for eight voices, which
# is the most that a dataset can have.
MAX_SOURCES = 8


def assign(losses: Tensor) -> Tensor:
    """Returns the assignment with the least total loss.

    It is computed on the device without a loop, so that it compiles. The number of steps equals the
    number of voices.

    Args:
        losses: loss of each output against each voice, `[batch, output, source]`; as many outputs
            as voices.

    Returns:
        int32 `[batch, output]`: the voice assigned to each output. Ties go to the first
        permutation in lexicographic order.
    """
    num_sources = losses.shape[-1]
    if losses.shape[-2] != num_sources:
        raise ValueError(f"{losses.shape[-2]} outputs cannot be assigned to {num_sources} voices")
    if num_sources > MAX_SOURCES:
        raise ValueError(f"at most {MAX_SOURCES} voices can be assigned, not {num_sources}")
    losses = ops.cast(losses, "float32")
    return _try_all(losses) if num_sources <= _FEW else _by_sets(losses)


def _try_all(losses: Tensor) -> Tensor:
    num_sources = losses.shape[-1]
    permutations = np.array(list(itertools.permutations(range(num_sources))), "int32")
    # [permutation, output, source], 1 where the output is assigned to the voice.
    chosen = np.eye(num_sources, dtype="float32")[permutations]
    totals = ops.einsum("bos,pos->bp", losses, ops.convert_to_tensor(chosen))
    return ops.take(ops.convert_to_tensor(permutations), ops.argmin(totals, axis=-1), axis=0)


def _by_sets(losses: Tensor) -> Tensor:
    """Dynamic programming: exact, with S · 2^S additions for S voices instead of S!.

    The last k outputs share a set of k voices. The best assignment of a set follows from those of
    its subsets for the last k - 1 outputs. A pass from the first output on then reads it off.
    """
    num_sources = losses.shape[-1]
    least = ops.zeros_like(losses[:, 0, :1])
    choices = []
    for size in range(1, num_sources + 1):
        members, rest = _sets(num_sources, size)
        own = ops.take(losses[:, num_sources - size], members, axis=1)
        totals = own + ops.take(least, rest, axis=1)
        least = ops.min(totals, axis=-1)
        choices.append(ops.cast(ops.argmin(totals, axis=-1), "int32"))
    current = ops.zeros_like(choices[-1][:, :1])
    assignment = []
    for size in range(num_sources, 0, -1):
        members, rest = _sets(num_sources, size)
        # Index of the chosen voice of the current set in the flattened tables.
        place = current * size + ops.take_along_axis(choices[size - 1], current, axis=1)
        assignment.append(ops.take(members.ravel(), place))
        current = ops.take(rest.ravel(), place)
    return ops.concatenate(assignment, axis=1)


@functools.cache
def _sets(num_sources: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns all sets of `size` voices.

    Returns:
        The members of each set in ascending order, and for each member the index of the set
        without it among the sets of `size - 1` voices; int32 `[set, member]`.
    """
    numbers = {s: i for i, s in enumerate(itertools.combinations(range(num_sources), size - 1))}
    sets = list(itertools.combinations(range(num_sources), size))
    rest = [[numbers[tuple(v for v in s if v != member)] for member in s] for s in sets]
    return np.array(sets, "int32"), np.array(rest, "int32")


def reorder(sources: Tensor, assignment: Tensor) -> Tensor:
    """Reorders the sources to match the outputs.

    Args:
        sources: `[batch, source, ...]`.
        assignment: `[batch, output]`, the result of `assign`.

    Returns:
        `[batch, output, ...]`.
    """
    # A product with a one-hot matrix is exact, and faster than a gather on every backend.
    chosen = ops.one_hot(assignment, sources.shape[1], dtype=sources.dtype)
    flat = ops.reshape(sources, (*ops.shape(sources)[:2], -1))
    return ops.reshape(ops.matmul(chosen, flat), ops.shape(sources))
