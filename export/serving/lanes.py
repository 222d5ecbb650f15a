"""Draws turns as lanes, one below the other, for display above a spectrogram."""

from collections.abc import Sequence

import markupsafe

from export.separation import activity


def svg(found: activity.Activity, voices: Sequence[int]) -> markupsafe.Markup:
    """Draws lanes that span the whole recording, in the colours of the voices.

    Args:
        found: who speaks when.
        voices: the voices to draw, counted from 0, from top to bottom.

    Returns:
        The picture, with a text description for accessibility.
    """
    bars = "".join(
        f'<rect class="voice{turn.speaker + 1}" x="{turn.start:.3f}" y="{lane + 0.14:.2f}" '
        f'width="{turn.end - turn.start:.3f}" height="0.72"/>'
        for lane, voice in enumerate(voices)
        for turn in found.turns
        if turn.speaker == voice
    )
    about = "; ".join(_described(found, voice) for voice in voices)
    return markupsafe.Markup(
        f'<svg class="lanes lanes{len(voices)}" viewBox="0 0 {max(found.seconds, 0.001):.3f} '
        f'{len(voices)}" preserveAspectRatio="none" role="img" '
        f'aria-label="{markupsafe.escape(about)}">{bars}</svg>'
    )


def _described(found: activity.Activity, voice: int) -> str:
    count = sum(turn.speaker == voice for turn in found.turns)
    turns = f"{count} turn{'s' * (count != 1)}"
    return f"Voice {voice + 1} speaks in {turns}, {100 * found.share[voice]:.0f} % of the time"


def clock(seconds: float) -> str:
    """Formats minutes, seconds and tenths, such as 1:02.5."""
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"
