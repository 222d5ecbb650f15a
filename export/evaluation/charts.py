"""Charts of the evaluation report, as inline SVG without scripts.

Colours are CSS variables, so charts follow the page's light or dark theme. Charts are sized to be
legible on a phone; wider screens show several side by side. The `aria-label` of every chart
describes what it shows.
"""

import math
from collections.abc import Mapping, Sequence

import markupsafe
import numpy as np

from export.evaluation import tables

WIDTH, HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 12, 36
# Height of one group in a distribution chart.
_GROUP_HEIGHT = 44


def ticks(low: float, high: float, count: int = 5, whole: bool = False) -> list[float]:
    """Returns about `count` round numbers within [low, high]; integers only if `whole` is set."""
    span = max(high - low, 1e-9)
    raw = max(span / max(count, 1), 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    steps = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    step = next(power * m for m in steps if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(step * i, 10) for i in range(first, last + 1)]


def padded_range(values: np.ndarray, include: Sequence[float] = ()) -> tuple[float, float]:
    """Returns a range that covers all finite values and `include`, with a small margin."""
    finite = values[np.isfinite(values)]
    all_values = np.concatenate([finite, np.asarray(include, np.float64)])
    low, high = (all_values.min(), all_values.max()) if all_values.size else (0.0, 1.0)
    air = 0.05 * (high - low) or 0.5
    return float(low - air), float(high + air)


class _Canvas:
    """One chart under construction: axes first, then marks."""

    def __init__(
        self,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        *,
        height: int = HEIGHT,
        left: int = _LEFT,
    ) -> None:
        self._x, self._y = x_range, y_range
        self._height, self._left = height, left
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        low, high = self._x
        share = (value - low) / (high - low)
        return round(self._left + share * (WIDTH - self._left - _RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self._y
        share = (value - low) / (high - low)
        return round(self._height - _BOTTOM - share * (self._height - _TOP - _BOTTOM), 1)

    def add(self, part: str) -> None:
        self.parts.append(part)

    def text(
        self, x: float, y: float, text: str, kind: str = "tick", anchor: str = "middle"
    ) -> None:
        self.add(
            f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">'
            f"{markupsafe.escape(text)}</text>"
        )

    def x_axis(self, title: str, grid: bool = True, whole: bool = False) -> None:
        bottom = self._height - _BOTTOM
        for value in ticks(*self._x, whole=whole):
            kind = "zero" if value == 0 else "grid"
            if grid or value == 0:
                self.add(f'<path class="{kind}" d="M{self.x(value)} {_TOP}V{bottom}"/>')
            self.text(self.x(value), bottom + 14, _plain(value))
        self.text((self._left + WIDTH - _RIGHT) / 2, self._height - 4, title, "axis")

    def y_axis(self) -> None:
        for value in ticks(*self._y):
            kind = "zero" if value == 0 else "grid"
            self.add(f'<path class="{kind}" d="M{self._left} {self.y(value)}H{WIDTH - _RIGHT}"/>')
            self.text(self._left - 6, self.y(value) + 4, _plain(value), anchor="end")

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str) -> None:
        points = [
            f"{self.x(x)} {self.y(y)}"
            for x, y in zip(xs, ys, strict=True)
            if np.isfinite(x) and np.isfinite(y)
        ]
        if len(points) == 1:
            x, y = points[0].split()
            self.add(f'<circle class="{kind} dot" cx="{x}" cy="{y}" r="3"/>')
        elif points:
            self.add(f'<path class="{kind} line" d="M{"L".join(points)}"/>')

    def svg(self, label: str) -> markupsafe.Markup:
        return markupsafe.Markup(
            f'<svg class="chart" viewBox="0 0 {WIDTH} {self._height}" role="img" '
            f'aria-label="{markupsafe.escape(label)}">{"".join(self.parts)}</svg>'
        )


def distribution(
    groups: Mapping[str, np.ndarray], axis: str, x_range: tuple[float, float], about: str
) -> markupsafe.Markup:
    """Draws the points, quartiles and median of each group on a common axis.

    Args:
        groups: values by name, from top to bottom.
        axis: title of the axis.
        x_range: the axis range, shared by charts that are compared.
        about: what the values are, for the description.
    """
    height = _TOP + _BOTTOM + _GROUP_HEIGHT * len(groups)
    canvas = _Canvas(x_range, (0, 1), height=height, left=12)
    canvas.x_axis(axis)
    said = []
    for i, (name, values) in enumerate(groups.items()):
        values = np.sort(values[np.isfinite(values)])
        top = _TOP + i * _GROUP_HEIGHT
        middle = top + 28
        canvas.text(14, top + 12, f"{name} ({values.size})", "group", "start")
        # A fixed pattern instead of random jitter, so that the page is reproducible.
        offsets = (np.arange(values.size) * 0.618034) % 1 * 16 - 8
        for value, offset in zip(values, offsets, strict=True):
            canvas.add(
                f'<circle class="point" cx="{canvas.x(value)}" cy="{middle + offset:.1f}" r="2"/>'
            )
        if values.size:
            low, median, high = (canvas.x(v) for v in np.percentile(values, [25, 50, 75]))
            canvas.add(
                f'<rect class="box" x="{low}" y="{middle - 9}" width="{max(high - low, 0.5):.1f}" '
                f'height="18" rx="3"/><path class="median" d="M{median} {middle - 9}v18"/>'
            )
            said.append(
                f"{name}: median {tables.number(float(np.median(values)), 1)} of {values.size}"
            )
    return canvas.svg(f"{about}. {'; '.join(said)}.")


def scatter(
    xs: np.ndarray,
    ys: np.ndarray,
    x_axis: str,
    y_range: tuple[float, float],
    about: str,
    x_range: tuple[float, float] | None = None,
) -> markupsafe.Markup:
    """Draws a scatter plot with the median of each sixth of the points.

    Args:
        xs: `[point]`.
        ys: `[point]`.
        x_axis: title of the horizontal axis.
        y_range: the vertical range, shared by charts that are compared.
        about: what the chart shows, for the description.
        x_range: the horizontal range, by default that of `xs`.
    """
    finite = np.isfinite(xs) & np.isfinite(ys)
    order = np.argsort(xs[finite], kind="stable")
    xs, ys = xs[finite][order], ys[finite][order]
    canvas = _Canvas(x_range or padded_range(xs), y_range)
    canvas.x_axis(x_axis, grid=False)
    canvas.y_axis()
    for x, y in zip(xs, ys, strict=True):
        canvas.add(f'<circle class="point" cx="{canvas.x(x)}" cy="{canvas.y(y)}" r="2"/>')
    said = ""
    if xs.size >= 12:
        parts = [part for part in np.array_split(np.arange(xs.size), 6)]
        centres = [float(np.median(xs[part])) for part in parts]
        medians = [float(np.median(ys[part])) for part in parts]
        canvas.line(centres, medians, "trend")
        said = (
            f" The median goes from {tables.number(medians[0], 1)} at "
            f"{tables.number(centres[0], 1)} to {tables.number(medians[-1], 1)} at "
            f"{tables.number(centres[-1], 1)}."
        )
    return canvas.svg(f"{about}, {xs.size} points.{said}")


def curves(
    epochs: Sequence[float], lines: Mapping[str, Sequence[float]], about: str
) -> markupsafe.Markup:
    """Draws learning curves over epochs.

    Args:
        epochs: `[epoch]`.
        lines: values by the line's CSS class, `train` or `valid`.
        about: what the chart shows, for the description.
    """
    values = np.array([v for line in lines.values() for v in line], np.float64)
    first, last = min(epochs), max(epochs)
    span = (first - 0.5, last + 0.5) if first == last else (first, last)
    canvas = _Canvas(span, padded_range(values))
    canvas.y_axis()
    canvas.x_axis("epoch", grid=False, whole=True)
    for kind, line in lines.items():
        canvas.line(epochs, line, kind)
    said = [
        f"{'validation' if kind == 'valid' else 'training'} from {line[0]:.4g} to {line[-1]:.4g}"
        for kind, line in lines.items()
    ]
    return canvas.svg(f"{about} over {len(epochs)} epochs: {', '.join(said)}.")


def waveform(samples: np.ndarray, full: float, about: str, buckets: int = 400) -> markupsafe.Markup:
    """Draws a signal's envelope.

    Args:
        samples: `[sample]`.
        full: the amplitude that fills the height.
        about: whose signal it is, for the description.
        buckets: number of columns; each shows its smallest and largest sample.
    """
    starts = np.unique(np.linspace(0, samples.size, buckets, endpoint=False).astype(int))
    high = np.maximum.reduceat(samples, starts) / (full or 1)
    low = np.minimum.reduceat(samples, starts) / (full or 1)
    xs = np.arange(starts.size)
    up = " ".join(f"{x} {20 - 19 * v:.1f}" for x, v in zip(xs, high, strict=True))
    down = " ".join(f"{x} {20 - 19 * v:.1f}" for x, v in zip(xs[::-1], low[::-1], strict=True))
    return markupsafe.Markup(
        f'<svg class="wave" viewBox="0 0 {max(starts.size - 1, 1)} 40" preserveAspectRatio="none" '
        f'role="img" aria-label="{markupsafe.escape(about)}"><path d="M{up} {down}Z"/></svg>'
    )


def _plain(value: float) -> str:
    return f"{value:g}".replace("-", "−")
