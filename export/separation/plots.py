"""Draws a separation: waveforms, spectrograms, and each voice's share of each bin."""

import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from export.separation import activity, pictures
from pipeline import features, schema
from pipeline.io import atomic

# Range of a spectrogram below its loudest bin.
RANGE_DB = 70.0
# Maximum duration shown in one picture: more would not be legible.
SECONDS = 20.0
# Okabe and Ito's colours, distinguishable with colour blindness.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def draw_separation(
    path: str | os.PathLike[str],
    mixture: np.ndarray,
    voices: np.ndarray,
    rate: int,
    title: str,
    turns: Sequence[activity.Turn] = (),
) -> None:
    """Writes a PNG: a column for the mixture and one for each voice.

    The rows are the waveform, the spectrogram, and the voices' shares of each bin; in the mixture's
    column, the last row shows who speaks when.

    Args:
        path: the file to write; it gets its name once it is complete.
        mixture: float32 `[sample]`.
        voices: float32 `[source, sample]`.
        rate: in Hz.
        title: the figure's title.
        turns: who speaks when.
    """
    # Not pyplot, which may need a display and leaves state behind in the caller's process.
    from matplotlib.figure import Figure

    signals = [mixture, *voices]
    names = ["mixture", *(f"voice {i + 1}" for i in range(len(voices)))]
    colours = ["#444444", *(_COLOURS[i % len(_COLOURS)] for i in range(len(voices)))]
    spectrograms = [20 * features.log_magnitude(features.stft(signal)) for signal in signals]
    masks = pictures.shares(voices)
    limit = 1.05 * max(float(np.abs(signals).max()), 1e-6)
    loudest = float(spectrograms[0].max())
    seconds = max(len(mixture), 1) / rate

    figure = Figure(figsize=(5 * len(signals) + 1, 9), dpi=100, layout="constrained")
    # The name of a file need not be UTF-8, and Matplotlib takes nothing else.
    title = title.encode("utf-8", "replace").decode()
    figure.suptitle(title, fontsize=15, parse_math=False)
    grid = figure.subplots(3, len(signals), squeeze=False)
    for column, name in enumerate(names):
        top, middle, bottom = grid[:, column]
        top.set_title(name, fontsize=14, color=colours[column])
        top.plot(np.arange(len(mixture)) / rate, signals[column], colours[column], linewidth=0.5)
        top.set_ylim(-limit, limit)
        top.grid(alpha=0.3)
        sound = _draw_bins(middle, spectrograms[column], rate, "magma", loudest - RANGE_DB, loudest)
        if column:
            share = _draw_bins(bottom, masks[column - 1], rate, "viridis", 0, 1)
            bottom.set_title(f"share of each bin given to {name}", fontsize=12)
            bottom.set_xlabel("time in s")
        for axes in (top, middle, bottom):
            axes.set_xlim(0, seconds)
    grid[0, 0].set_ylabel("amplitude")
    grid[1, 0].set_ylabel("frequency in kHz")
    grid[1, 0].set_xlabel("time in s")
    grid[2, 1].set_ylabel("frequency in kHz")
    _draw_turns(grid[2, 0], turns, colours[1:], seconds)
    figure.colorbar(sound, ax=grid[1, :], label="dB")
    figure.colorbar(share, ax=grid[2, :], label="share")

    with atomic.replacing(path) as temporary, warnings.catch_warnings():
        # Characters missing from all installed fonts are drawn as boxes.
        warnings.simplefilter("ignore")
        figure.savefig(temporary, format="png")


def _draw_turns(
    axes: Any, turns: Sequence[activity.Turn], colours: Sequence[str], seconds: float
) -> None:
    """Draws a lane for each voice, the first at the top."""
    for lane, colour in enumerate(colours):
        own = [(turn.start, turn.end - turn.start) for turn in turns if turn.speaker == lane]
        axes.broken_barh(own, (lane - 0.35, 0.7), facecolors=colour)
    axes.set_title("who speaks when", fontsize=12)
    axes.set_yticks(range(len(colours)), [f"voice {lane + 1}" for lane in range(len(colours))])
    axes.set_ylim(len(colours) - 0.5, -0.5)
    axes.set_xlim(0, seconds)
    axes.set_xlabel("time in s")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _draw_bins(
    axes: Any, values: np.ndarray, rate: int, colours: str, low: float, high: float
) -> Any:
    """Draws `[frame, bin]` over seconds and kHz; returns the image for a colour bar."""
    half = schema.HOP / rate / 2
    last = (len(values) - 1) * schema.HOP / rate
    return axes.imshow(
        values.T, origin="lower", aspect="auto", cmap=colours, vmin=low, vmax=high,
        extent=(-half, last + half, 0, rate / 2000), interpolation="nearest",
    )  # fmt: skip


class Beginning:
    """Keeps the first seconds of a recording given in pieces, for the picture."""

    def __init__(self, rate: int) -> None:
        """Starts empty, for a recording at `rate` Hz."""
        self._rate = rate
        self._left = round(SECONDS * rate)
        self._mixture: list[np.ndarray] = []
        self._voices: list[np.ndarray] = []

    def __call__(self, mixture: np.ndarray, voices: np.ndarray) -> None:
        """Adds one piece, `[sample, channel]` and `[source, sample, channel]`."""
        if self._left:
            self._mixture.append(mixture[: self._left].mean(axis=-1))
            self._voices.append(voices[:, : self._left].mean(axis=-1))
            self._left -= len(self._mixture[-1])

    def draw(
        self, path: pathlib.Path, name: str, seconds: float, turns: Sequence[activity.Turn] = ()
    ) -> None:
        """Writes the picture of the recording `name`, whose duration is `seconds`."""
        shown = f"first {SECONDS:.0f} of {seconds:.0f} s" if not self._left else ""
        draw_separation(
            path,
            np.concatenate(self._mixture),
            np.concatenate(self._voices, axis=1),
            self._rate,
            f"{name}, {shown}" if shown else name,
            turns,
        )
