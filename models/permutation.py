"""Which output is which voice: the assignment with the least loss over the whole utterance.

D. Yu, M. Kolbæk, Z.-H. Tan, J. Jensen: «Permutation invariant training of deep models for
speaker-independent multi-talker speech separation», ICASSP 2017.
"""

import functools
import itertools
from typing import Any

import numpy as np
from keras import ops

Tensor = Any

# Up to so many voices all assignments are tried: six, and one product of matrices.
_FEW = 3
# Beyond, the best assignments of all sets of voices are found: 4,096 sets of twelve.
MAX_SOURCES = 12


def assign(losses: Tensor) -> Tensor:
    """The best assignment.

    It is found on the device, whatever the number of voices: in as many steps as there are voices,
    without a loop, so that it compiles.

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
    losses = ops.cast(losses, "float32")
    return _try_all(losses) if num_sources <= _FEW else _by_sets(losses)


def _try_all(losses: Tensor) -> Tensor:
    num_sources = losses.shape[-1]
    permutations = np.array(list(itertools.permutations(range(num_sources))), "int32")
    # [permutation, output, source], 1 where the output is taken for the voice.
    chosen = np.eye(num_sources, dtype="float32")[permutations]
    totals = ops.einsum("bos,pos->bp", losses, ops.convert_to_tensor(chosen))
    return ops.take(ops.convert_to_tensor(permutations), ops.argmin(totals, axis=-1), axis=0)


def _by_sets(losses: Tensor) -> Tensor:
    """By dynamic programming: exact, and for S voices S · 2^S additions instead of S!.

    The last k outputs share a set of k voices; the best way to do so follows from the best ways of
    the last k - 1 outputs with one voice less. Then the outputs choose, from the first on.
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
        # Where in the tables, read as one row, the chosen voice of the current set stands.
        place = current * size + ops.take_along_axis(choices[size - 1], current, axis=1)
        assignment.append(ops.take(members.ravel(), place))
        current = ops.take(rest.ravel(), place)
    return ops.concatenate(assignment, axis=1)


@functools.cache
def _sets(num_sources: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """All sets of `size` voices.

    Returns:
        Their members, in ascending order, and for each member the number of the set without it
        among those that have one voice less; int32 `[set, member]`.
    """
    numbers = {s: i for i, s in enumerate(itertools.combinations(range(num_sources), size - 1))}
    sets = list(itertools.combinations(range(num_sources), size))
    rest = [[numbers[tuple(v for v in s if v != member)] for member in s] for s in sets]
    return np.array(sets, "int32"), np.array(rest, "int32")


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
