"""Curves of a run: loss, mask accuracy and SI-SDR improvement over the epochs."""

import pathlib
from collections.abc import Sequence

from matplotlib import figure

from pipeline.io import atomic

_PANELS = (
    ("loss", "loss"),
    ("mask_accuracy", "mask accuracy"),
    ("si_sdr_improvement", "SI-SDR improvement, dB"),
)


def draw(history: Sequence[dict[str, float]], path: pathlib.Path) -> None:
    """Draws the curves.

    Args:
        history: one row per epoch, as in `log.csv`.
        path: path of the PNG file.
    """
    drawing = figure.Figure(figsize=(12, 3.6), layout="constrained")
    panels = drawing.subplots(1, len(_PANELS))
    for panel, (name, title) in zip(panels, _PANELS, strict=True):
        for key, label in ((name, "train"), (f"val_{name}", "valid")):
            points = [(row["epoch"], row[key]) for row in history if key in row]
            if points:
                panel.plot(*zip(*points, strict=True), label=label, marker=".")
        panel.set_title(title)
        panel.set_xlabel("epoch")
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend()
    with atomic.replacing(path, durable=True) as temporary:
        drawing.savefig(temporary, dpi=100)
