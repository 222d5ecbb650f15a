"""The evaluation report: one self-contained HTML file with figures, charts and audio.

`templates/` has the page's text, style and script; charts come from `export.evaluation.charts`,
pictures and sound from `export.separation.pictures`. This module arranges the summary in reading
order.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.evaluation import (
    aggregates,
    charts,
    dataset_mixtures,
    metrics,
    oracles,
    tables,
)
from export.evaluation.scoring import Row, Separation
from export.separation import pictures
from pipeline import features, file_names, version

_IMPROVEMENT = "si_sdr_improvement"
_IDEAL = oracles.ORACLES[0]
_DB = "SI-SDR improvement, dB"


@dataclasses.dataclass(frozen=True)
class Example:
    """A mixture shown in the report.

    Attributes:
        dataset: name of its dataset.
        kind: `best`, `median` or `worst`.
        mixture: the record.
        rows: its figures by system.
        separations: the models' separations of it.
    """

    dataset: str
    kind: str
    mixture: dataset_mixtures.Mixture
    rows: Mapping[str, Row]
    separations: Sequence[Separation]


def training_log(path: str) -> dict[str, list[float]]:
    """Reads the learning curves of the run that a model comes from.

    Args:
        path: the model's path; `log.csv` is in its folder if it is a training run or was exported
            with its log.

    Returns:
        Columns of `log.csv` by name; empty if there is no readable `log.csv`.
    """
    place = pathlib.Path(path)
    file = (place if place.is_dir() else place.parent) / file_names.TRAINING_LOG
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        columns = {name: [_float(row[name]) for row in rows] for name in rows[0]}
    except (OSError, csv.Error, IndexError, UnicodeDecodeError):
        return {}
    return columns if "epoch" in columns else {}


def render(
    summary: Mapping[str, Any],
    rows: Mapping[str, Sequence[Row]],
    examples: Sequence[Example],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    audio: bool = True,
) -> str:
    """Renders report.html.

    Args:
        summary: the content of results.json.
        rows: the rows of each dataset, by name.
        examples: mixtures to show, in order.
        curves: `training_log` of each model.
        audio: whether to include audio players.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("export"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    models = [model["name"] for model in summary["settings"]["models"]]
    shown = models or [_IDEAL]
    first = summary["datasets"][0].get("condition")
    datasets = [
        {
            **data,
            "table": tables.summary_table(data["systems"], tables.metric_names(data["systems"])),
            "dots": _dots(data["systems"], models) if _has_si_sdr(data) else None,
            # One condition is enough for the top of the page.
            "leader": _leader(data["systems"], shown) if data.get("condition") == first else None,
            "differences": _differences(data["differences"]),
            "missing": _missing(data["systems"]),
            "panels": _panels(rows[data["name"]], shown) if _has_si_sdr(data) else [],
            "examples": [_example(e, shown, audio) for e in examples if e.dataset == data["name"]],
        }
        for data in summary["datasets"]
    ]
    return environment.get_template("report.html.j2").render(
        summary=summary,
        models=models,
        datasets=datasets,
        conditions=tables.conditions_table(summary["datasets"]),
        training=[(model, _training(curves[model])) for model in models if curves.get(model)],
        titles={name: metric.title for name, metric in metrics.METRICS.items()},
        ideal=_IDEAL,
        others=_others(max(data["num_sources"] for data in datasets)),
        version=version.VERSION,
        number=tables.number,
        audio=audio,
    )


def _dots(systems: Mapping[str, Any], models: Sequence[str]) -> dict[str, Any]:
    """Places the means and intervals of all systems on one axis, in percent of its width."""
    described = {name: figures[_IMPROVEMENT][aggregates.ALL] for name, figures in systems.items()}
    ends = [d[key] for d in described.values() for key in ("low", "mean", "high")]
    low, high = charts.padded_range(np.array([e for e in ends if e is not None]), [0.0])

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - low) / (high - low), 2)

    return {
        "ticks": [(place(tick), tables.number(tick, 0)) for tick in charts.ticks(low, high)],
        "rows": [
            {
                "name": name,
                "model": name in models,
                "text": tables.number(d["mean"], 1),
                "mean": place(d["mean"]),
                "low": place(d["low"] if d["low"] is not None else d["mean"]),
                "high": place(d["high"] if d["high"] is not None else d["mean"]),
            }
            for name, d in described.items()
            if d["mean"] is not None
        ],
    }


def _has_si_sdr(data: Mapping[str, Any]) -> bool:
    """Returns whether all voices are heard in each of the mixtures."""
    return any(_IMPROVEMENT in figures for figures in data["systems"].values())


def _leader(systems: Mapping[str, Any], shown: Sequence[str]) -> dict[str, Any] | None:
    """Describes the best model, for the top of the page; None if SI-SDR was not measured."""
    shown = [name for name in shown if _IMPROVEMENT in systems.get(name, {})]
    described = {name: systems[name][_IMPROVEMENT][aggregates.ALL] for name in shown}
    known = {name: d for name, d in described.items() if d["mean"] is not None}
    if not known:
        return None
    name = max(known, key=lambda name: known[name]["mean"])
    ideal = systems[_IDEAL][_IMPROVEMENT][aggregates.ALL]["mean"]
    return {"name": name, "ideal": ideal, **known[name]}


def _differences(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lists paired differences, one line per pair of models and figure."""
    return [
        {
            **difference,
            "title": metrics.title(difference["figure"]),
            "digits": metrics.METRICS[difference["figure"]].digits + 1,
        }
        for difference in found
        if difference["mean"] is not None
    ]


def _missing(systems: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
    """Lists what could not be computed: system, figure, how often, out of how many."""
    return [
        (
            name,
            metrics.title(figure),
            all_of[aggregates.ALL]["missing"],
            all_of[aggregates.ALL]["count"],
        )
        for name, figures in systems.items()
        for figure, all_of in figures.items()
        if all_of[aggregates.ALL]["missing"]
        # The mixture has no mask, and an improvement is missing with its figure.
        and not (name == oracles.MIXTURE and figure.startswith("mask_accuracy"))
        and figure in metrics.METRICS
    ]


def _panels(rows: Sequence[Row], shown: Sequence[str]) -> list[dict[str, Any]]:
    """Draws the three charts of each model, on common axes."""
    by_system = {name: [row for row in rows if row["system"] == name] for name in shown}
    num_sources = sum(column.startswith("relative_level_") for column in rows[0])
    several = num_sources > 2
    talk = "two or more" if several else "both"
    level_title = f"voice's level over the {'others' if several else 'other'}, dB"

    def column(own: Sequence[Row], name: str) -> np.ndarray:
        return np.array([np.nan if row.get(name) is None else row[name] for row in own], float)

    def voices(own: Sequence[Row], name: str) -> np.ndarray:
        return np.concatenate([column(own, f"{name}_{s + 1}") for s in range(num_sources)])

    everything = [row for own in by_system.values() for row in own]
    whole_range = charts.padded_range(column(everything, _IMPROVEMENT), [0.0])
    voice_range = charts.padded_range(voices(everything, _IMPROVEMENT), [0.0])
    level_range = charts.padded_range(voices(everything, "relative_level"))
    overlap_range = charts.padded_range(100 * column(everything, "overlap"), [90.0, 100.0])
    panels = []
    for name, own in by_system.items():
        groups = {
            pair: column([row for row in own if row["pair"] == pair], _IMPROVEMENT)
            for pair in dataset_mixtures.PAIRS
        }
        groups = {pair: values for pair, values in groups.items() if values.size}
        panels.append(
            {
                "name": name,
                "distribution": charts.distribution(
                    groups, _DB, whole_range, f"{_DB} of {name} by pair of voices"
                ),
                "level": charts.scatter(
                    voices(own, "relative_level"),
                    voices(own, _IMPROVEMENT),
                    level_title,
                    voice_range,
                    f"{_DB} of each voice by {name} against its level over {_others(num_sources)}",
                    level_range,
                ),
                "overlap": charts.scatter(
                    100 * column(own, "overlap"),
                    column(own, _IMPROVEMENT),
                    f"{talk} speak, % of the speech",
                    whole_range,
                    f"{_DB} of {name} against the share of the speech in which {talk} speak",
                    overlap_range,
                ),
            }
        )
    return panels


def _others(num_sources: int) -> str:
    return "the other voices" if num_sources > 2 else "the other voice"


_CURVE_TITLES = {
    "loss": "loss",
    "mask_accuracy": metrics.title("mask_accuracy"),
    "si_sdr_improvement": _DB,
}


def _training(columns: Mapping[str, Sequence[float]]) -> list[tuple[str, Any, bool]]:
    """Draws a chart per figure of the log: title, chart, whether it has both lines."""
    drawn = []
    names = [n.removeprefix("val_") for n in columns if n not in ("epoch", "learning_rate")]
    for name in dict.fromkeys(names):
        lines = {
            # The log stores a fraction.
            kind: [100 * v if name == "mask_accuracy" else v for v in columns[key]]
            for kind, key in (("train", name), ("valid", f"val_{name}"))
            if key in columns and np.isfinite(columns[key]).any()
        }
        if lines and (name in _CURVE_TITLES or f"val_{name}" in columns):
            title = _CURVE_TITLES.get(name, name.replace("_", " "))
            drawn.append((title, charts.curves(columns["epoch"], lines, title), len(lines) > 1))
    return drawn


def _example(example: Example, shown: Sequence[str], audio: bool) -> dict[str, Any]:
    """Builds an example's tiles: the mixture, the voices, the estimates and their assignment."""
    mixture = example.mixture
    spectrum = features.stft(mixture.waveform)
    peak = float(np.abs(spectrum).max())
    full = float(np.abs(mixture.waveform).max())
    voices = features.stft(mixture.voices)
    separations = list(example.separations)
    if not separations:
        masks = oracles.masks(_IDEAL, voices, spectrum)
        estimates = oracles.separate(masks, spectrum, mixture.waveform.size)
        separations = [Separation(_IDEAL, estimates, masks)]

    def tile(title: str, signal: np.ndarray, about: str, voice: int = 0, note: str = "") -> dict:
        return {
            "title": title,
            "voice": voice,
            "note": note,
            "picture": pictures.spectrogram(signal, peak),
            "alt": f"Spectrogram of {about}",
            "wave": charts.waveform(signal, full, f"Waveform of {about}"),
            "sound": pictures.sound(signal, mixture.rate) if audio else None,
            "label": f"Play {about}",
        }

    colours = ", ".join(
        f"{pictures.COLOUR_NAMES[s % len(pictures.COLOUR_NAMES)]} for voice {s + 1}"
        for s in range(len(mixture.sources))
    )

    def who(title: str, masks: np.ndarray, note: str, about: str) -> dict:
        return {
            "title": title,
            "note": note,
            "picture": pictures.assignment(masks, mixture.waveform, peak),
            "alt": f"{about}, {colours}, brighter where it is louder",
        }

    named = f"{example.kind} mixture {mixture.id}"
    by_model, masks_shown = [], []
    ideal = oracles.masks(_IDEAL, voices, spectrum)
    masks_shown.append(who("ideal binary mask", ideal, "", f"Who is louder in each bin of {named}"))
    for separation in separations:
        row = example.rows[separation.system]
        order = [int(estimate) - 1 for estimate in str(row["order"]).split()]
        tiles = []
        for s, estimate in enumerate(order):
            note = _voice_note(row, s + 1)
            about = f"voice {s + 1} by {separation.system}, {named}"
            tiles.append(tile(f"voice {s + 1}", separation.estimates[estimate], about, s + 1, note))
        by_model.append((separation.system, tiles))
        if separation.masks is not None and separation.system != _IDEAL:
            accuracy = row.get("mask_accuracy")
            note = "" if accuracy is None else f"{tables.number(float(accuracy), 1)} % agree"
            about = f"To whom {separation.system} gives each bin of {named}"
            masks_shown.append(who(separation.system, separation.masks[order], note, about))
    sexes = {"f": "female", "m": "male", "": "sex unknown"}
    return {
        "kind": example.kind,
        "id": mixture.id,
        "seconds": mixture.seconds,
        "speakers": [
            f"{speaker} ({sexes.get(sex, sex)})"
            for speaker, sex in zip(mixture.speakers, mixture.sexes, strict=True)
        ],
        "overlap": example.rows[oracles.MIXTURE]["overlap"],
        "levels": mixture.relative_levels_db(),
        "improvements": [(name, example.rows[name][_IMPROVEMENT]) for name in shown],
        "mixture": tile("mixture", mixture.waveform, f"the {named}"),
        "voices": [
            tile(f"voice {s + 1}", voice, f"voice {s + 1} alone, {named}", s + 1)
            for s, voice in enumerate(mixture.voices)
        ],
        "models": by_model,
        "masks": masks_shown,
        "kilohertz": mixture.rate / 2000,
    }


def _voice_note(row: Row, voice: int) -> str:
    """Formats the figures of one voice's estimate on one line."""
    parts = []
    for figure, unit in ((_IMPROVEMENT, " dB"), ("stoi", ""), ("pesq", "")):
        value = row.get(f"{figure}_{voice}")
        if value is not None:
            metric = metrics.of_figure(figure)
            text = tables.number(float(value), metric.digits)
            sign = "+" if figure == _IMPROVEMENT and float(value) > 0 else ""
            title = "" if figure == _IMPROVEMENT else f"{metric.title} "
            parts.append(f"{title}{sign}{text}{unit}")
    return " · ".join(parts)


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
