"""Activity of voices in sparse mixtures, as in conversations: turns, pauses, single speakers."""

import numpy as np

# Duration of fades at the start and end of activity, in seconds.
_FADE_SECONDS = (0.02, 0.05)
_TURN_SECONDS = (0.6, 3.0)
# Between two turns there is a pause or, in half of the cases, an overlap.
_LONGEST_PAUSE_SECONDS = 1.5
_LONGEST_OVERLAP_SECONDS = 0.8

# Start and end in seconds; parts outside the window are cut off.
_Span = tuple[float, float]


def envelopes(
    random: np.random.Generator, num_sources: int, num_samples: int, sample_rate: int
) -> np.ndarray:
    """Draws an envelope for each voice.

    One of three kinds is drawn with equal probability: voices take turns, with pauses and some
    overlap; one voice is active all the time and each other starts late, stops early or pauses; or
    one voice speaks alone. At least one voice is active somewhere. Fades take 20 to 50 ms.

    Args:
        random: random number generator.
        num_sources: number of voices.
        num_samples: number of samples in the window.
        sample_rate: sample rate, in Hz.

    Returns:
        float32 `[source, sample]` between 0 and 1; exactly 0 where a voice is silent.
    """
    seconds = num_samples / sample_rate
    kind = random.integers(3)
    if kind == 0:
        spans = _turns(random, num_sources, seconds)
    elif kind == 1:
        spans = _late_or_early(random, num_sources, seconds)
    else:
        spans = _alone(random, num_sources, seconds)
    made = np.zeros((num_sources, num_samples), np.float32)
    for row, own in zip(made, spans, strict=True):
        for begin, end in own:
            _hear(random, row, begin, end, sample_rate)
    return made


def _turns(random: np.random.Generator, num_sources: int, seconds: float) -> list[list[_Span]]:
    spans: list[list[_Span]] = [[] for _ in range(num_sources)]
    speaker = int(random.integers(num_sources))
    length = random.uniform(*_TURN_SECONDS)
    # The window starts in the first half of a turn.
    begin = -random.uniform(0, length / 2)
    while begin < seconds:
        spans[speaker].append((begin, begin + length))
        if random.random() < 0.5:
            gap = -random.uniform(0, min(_LONGEST_OVERLAP_SECONDS, length / 2))
        else:
            gap = random.uniform(0, _LONGEST_PAUSE_SECONDS)
        begin += length + gap
        length = random.uniform(*_TURN_SECONDS)
        # Choose a different voice.
        speaker = (speaker + int(random.integers(1, num_sources))) % num_sources
    return spans


def _late_or_early(
    random: np.random.Generator, num_sources: int, seconds: float
) -> list[list[_Span]]:
    spans: list[list[_Span]] = []
    constant = random.integers(num_sources)
    for number in range(num_sources):
        place, length = random.uniform(0.15, 0.85), random.uniform(0.2, 0.7)
        kind = random.integers(3)
        own = [(0.0, seconds)]
        if number != constant:
            if kind == 0:
                own = [(place * seconds, seconds)]
            elif kind == 1:
                own = [(0.0, place * seconds)]
            else:
                begin = random.uniform(0.1, 0.9 - length)
                own = [(0.0, begin * seconds), ((begin + length) * seconds, seconds)]
        spans.append(own)
    return spans


def _alone(random: np.random.Generator, num_sources: int, seconds: float) -> list[list[_Span]]:
    speaker = random.integers(num_sources)
    return [[(0.0, seconds)] if number == speaker else [] for number in range(num_sources)]


def _hear(
    random: np.random.Generator, row: np.ndarray, begin: float, end: float, sample_rate: int
) -> None:
    """Raises an envelope `[sample]` between `begin` and `end` (seconds); fades lie inside."""
    first, last = round(begin * sample_rate), round(end * sample_rate)
    fade_in, fade_out = (
        min(round(random.uniform(*_FADE_SECONDS) * sample_rate), (last - first) // 2)
        for _ in range(2)
    )
    gain = np.ones(last - first, np.float32)
    # No fade at an edge of the window: the voice was active before or continues.
    if first > 0:
        gain[:fade_in] = _rise(fade_in)
    if last < len(row):
        gain[len(gain) - fade_out :] = _rise(fade_out)[::-1]
    inside = slice(max(first, 0), min(last, len(row)))
    row[inside] = np.maximum(row[inside], gain[inside.start - first : inside.stop - first])


def _rise(count: int) -> np.ndarray:
    """Half a period of a cosine from 0 to 1, float32 `[count]`."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / count)).astype(np.float32)
