"""Evaluates how well models separate a dataset's mixtures: metrics, a table and a report.

    python -m export.evaluate --model=exported/lstm --data_dir=/data/timit-2mix --output_dir=report

writes report/results.csv (every mixture and system), report/results.json (means, medians, 95 %
intervals, by pair of voices) and report/report.html (one file: table, charts, spectrograms,
players). Besides the models, it lists the mixture itself (0 dB) and the results of ideal masks.
Repeat the same command to resume an interrupted run.
"""

import os
import pathlib
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from absl import flags

from export import pretrained
from pipeline import cli, errors, schema, version
from pipeline.io import cores

_METRICS = ("si_sdr", "sdr", "stoi", "pesq", "mask_accuracy")


def evaluate(
    models: Sequence[str],
    data_dirs: Sequence[str],
    output_dir: str,
    *,
    split: str = "test",
    max_mixtures: int | None = None,
    metric_names: Sequence[str] = _METRICS,
    workers: int | None = None,
    examples: int = 1,
    audio: bool = True,
    overwrite: bool = False,
    clusterers: Sequence[str] = (),
    conditions: Sequence[str] = ("clean",),
    noise_dir: str = "",
    room_dir: str = "",
) -> dict[str, Any] | None:
    """Evaluates models on datasets and writes the results.

    Args:
        models: paths for `export.separation.loading`.
        data_dirs: folders of datasets or external test sets (`export.evaluation.librimix`), at
            least one.
        output_dir: created if missing.
        split: `train`, `valid` or `test`.
        max_mixtures: maximum number of mixtures per dataset, or None for all.
        metric_names: from `export.evaluation.metrics.METRICS`.
        workers: number of processes; None for one per core.
        examples: number of best, median and worst mixtures each in the report, per dataset.
        audio: whether to include their audio in the report.
        overwrite: replace the content of `output_dir` once the new results are complete.
        clusterers: from `export.evaluation.clusterers`; each model with embeddings is also
            evaluated with each of these.
        conditions: from `export.evaluation.conditions.NAMES`; each dataset is evaluated under each.
        noise_dir: folder of recordings for `noise`; synthetic noise if empty.
        room_dir: folder of impulse responses for `room`; synthetic ones if empty.

    Returns:
        The summary, as in results.json; None if the results exist already.

    Raises:
        UserError: there is a problem with a model, a dataset or the folder.
    """
    from export.evaluation import aggregates, metrics, report, results, scoring
    from export.evaluation import conditions as conditions_lib
    from export.evaluation import examples as examples_lib

    names = _chosen_metrics(metric_names)
    absent = metrics.missing_libraries(names)
    paths = _open_datasets(data_dirs)
    rate = _rate(data_dirs, models)
    datasets = conditions_lib.open_all(
        paths, split, max_mixtures, conditions, noise_dir, room_dir, rate
    )
    loaded = _load_models(models, datasets, clusterers)
    settings = {
        "version": version.VERSION,
        "split": split,
        "max_mixtures": max_mixtures,
        "metrics": names,
        "datasets": [
            {"name": d.name, "path": d.path, "plan_digest": d.info.plan_digest} for d in datasets
        ],
        "models": [
            {"name": name, "path": model.path, "sha256": _fingerprint(model.path)}
            for name, model in loaded.items()
        ],
        **conditions_lib.fingerprints(noise_dir, room_dir),
    }
    finished = results.finished_settings(output_dir)
    if finished is not None and not overwrite:
        if finished == settings:
            print(f"{output_dir} holds these results already; --overwrite makes them anew")
            return None
        raise errors.UserError(
            f"{output_dir} holds results of other settings or another model: choose another "
            "--output_dir, or --overwrite"
        )
    for name, library in absent.items():
        print(f"{name}: {library} is not installed (pip install voices-apart[evaluate]): nan")

    libraries = metrics.versions()
    several = any(d.condition != conditions_lib.CLEAN for d in datasets)
    journal = results.Journal(output_dir, {**settings, "libraries": libraries}, overwrite)
    started, resumed = time.monotonic(), len(journal)
    if resumed:
        print(f"{resumed} mixtures are there already")
    usable = tuple(name for name in names if name not in absent)
    tasks = _tasks(datasets, loaded, usable, journal)
    total = sum(d.count for d in datasets)
    for task, rows in _progress(
        scoring.score_all(tasks, workers or cores.available_cores()), total, resumed
    ):
        journal.add(task.dataset, task.mixture.id, rows)
    seconds = time.monotonic() - started
    for d in datasets:
        journal.require(d.name, d.count, [*d.anchors, *d.systems(loaded)])

    rows_of = {d.name: journal.rows(d.name) for d in datasets}
    summary = {
        "settings": settings,
        "libraries": libraries,
        "missing_libraries": absent,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "datasets": [
            {
                "name": d.name,
                # Omitted if all are clean, as in files from before there were other conditions.
                **({"condition": d.condition, "dataset": d.base} if several else {}),
                "mixtures": d.count,
                "seconds": round(sum(_seconds(rows_of[d.name])), 2),
                "rate": d.info.sample_rate,
                "num_sources": d.info.num_sources,
                "systems": aggregates.summarise(rows_of[d.name], d.metrics(names)),
                "differences": aggregates.differences(
                    rows_of[d.name], d.systems(loaded), d.metrics(names)
                ),
            }
            for d in datasets
        ],
        "run": {
            "seconds": round(seconds, 1),
            "mixtures": total - resumed,
            "workers": workers or cores.available_cores(),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        },
    }
    shown = [
        example
        for d in datasets
        for example in examples_lib.choose(
            d, list(loaded), rows_of[d.name], examples, lambda mixture: _separate(loaded, mixture)
        )
    ]
    curves = {name: report.training_log(model.path) for name, model in loaded.items()}
    page = report.render(summary, rows_of, shown, curves, audio=audio)
    results.write(output_dir, rows_of, page, summary)
    journal.remove()
    return summary


def _chosen_metrics(names: Sequence[str]) -> list[str]:
    unknown = sorted(set(names) - set(_METRICS))
    if unknown:
        raise flags.IllegalFlagValueError(
            f"--metrics: {', '.join(unknown)} is unknown; known are {', '.join(_METRICS)}"
        )
    return [name for name in _METRICS if name in names or name == "si_sdr"]


def _open_datasets(data_dirs: Sequence[str]) -> dict[str, str]:
    """Returns the datasets' folders by name, ready to be read."""
    from trainer.data import tfio

    if not data_dirs:
        raise errors.UserError("no dataset: give --data_dir, a folder made by pipeline.preprocess")
    for path in data_dirs:
        tfio.connect(path)
    return dict(zip(_names(data_dirs), data_dirs, strict=True))


def _rate(data_dirs: Sequence[str], models: Sequence[str]) -> int | None:
    """Returns the rate to which external test sets are resampled: the first model's, in Hz."""
    from export.evaluation import librimix
    from export.separation import loading

    if not models or not any(librimix.find(path)[1] for path in data_dirs):
        return None
    return loading.load(models[0]).sample_rate


def _load_models(
    paths: Sequence[str], datasets: Sequence[Any], clusterers: Sequence[str]
) -> dict[str, Any]:
    from export.evaluation import oracles
    from export.separation import loading

    loaded = {}
    for name, path in zip(_names(paths, oracles.ANCHORS), paths, strict=True):
        model = loading.load(path)
        for data in datasets:
            if model.sample_rate != data.info.sample_rate:
                raise errors.UserError(
                    f"{path} separates at {model.sample_rate} Hz, but {data.path} has "
                    f"{data.info.sample_rate} Hz: make the dataset at the model's --sample_rate"
                )
            if model.num_sources != data.info.num_sources:
                raise errors.UserError(
                    f"{path} separates {model.num_sources} voices, but {data.path} has "
                    f"{data.info.num_sources} in a mixture"
                )
        loaded[name] = model
    return {**loaded, **_clustered(loaded, clusterers)}


def _clustered(models: dict[str, Any], clusterers: Sequence[str]) -> dict[str, Any]:
    """Returns each model that has embeddings combined with each of the clusterers."""
    if not clusterers:
        return {}
    from export.evaluation import clusterers as clusterers_lib

    found = {
        f"{name}, {clusterer}": clusterers_lib.load(model.path, clusterer)
        for name, model in models.items()
        for clusterer in clusterers
    }
    if not any(found.values()):
        raise errors.UserError(
            "--clusterer is for networks with embeddings (deep_clustering, chimera), given as the "
            "trainer's --model_dir: no --model is one"
        )
    return {name: model for name, model in found.items() if model}


def _names(paths: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Returns short, unique names of folders: the last parts that distinguish them."""
    found: list[str] = []
    for number, path in enumerate(paths):
        if os.path.realpath(path) in map(os.path.realpath, paths[:number]):
            raise errors.UserError(f"{path} is named twice")
        parts = pathlib.Path(os.path.abspath(path)).parts
        parts = parts[:-1] if parts[-1].endswith(".keras") else parts
        depth = 1
        while (name := "/".join(parts[-depth:])) in {*found, *taken} and depth < len(parts):
            depth += 1
        found.append(name)
    return found


def _fingerprint(path: str) -> str:
    """Computes the SHA-256 of the files that are loaded from the path."""
    import hashlib

    from export.outlets import formats, keras_model

    row = formats.of(path)
    files = row.files(pathlib.Path(path)) if row else [keras_model.find(path)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            for block in iter(lambda stream=stream: stream.read(1 << 20), b""):  # type: ignore[misc]
                digest.update(block)
    return digest.hexdigest()


def _tasks(
    datasets: Sequence[Any], models: dict[str, Any], names: tuple[str, ...], journal: Any
) -> Iterator[Any]:
    """Yields the mixtures still to be scored, separated by the models in this process."""
    from export.evaluation import scoring

    # Datasets with all metrics first: `scoring.score_all` decides by the first task.
    for data in sorted(datasets, key=lambda data: not data.has_si_sdr):
        for mixture in data.read():
            if (data.name, mixture.id) not in journal:
                separations = _separate(models, mixture, masks=data.has_si_sdr)
                if not data.has_si_sdr:
                    separations += _separate_as_a_person_would(models, mixture)
                yield scoring.Task(
                    data.name, mixture, separations, tuple(data.metrics(names)), data.scorer
                )


def _separate(models: dict[str, Any], mixture: Any, masks: bool = True) -> tuple[Any, ...]:
    import numpy as np

    from export.evaluation import scoring
    from export.separation import pictures

    separations = []
    for name, model in models.items():
        estimates = model.separate(mixture.waveform[np.newaxis])[0]
        found = None
        if masks and "masks" in model.info.signatures:
            found = model.masks(_heard(model, mixture)[np.newaxis])[0]
        elif masks:
            found = pictures.shares(estimates)
        separations.append(scoring.Separation(name, estimates, found))
    return tuple(separations)


def _separate_as_a_person_would(models: dict[str, Any], mixture: Any) -> tuple[Any, ...]:
    """Separates a mixture with all the processing that `export.separate` adds to a model."""
    from export import separate
    from export.evaluation import conditions, scoring

    return tuple(
        scoring.Separation(
            conditions.as_separated(name), separate.separate(mixture.waveform, mixture.rate, model)
        )
        for name, model in models.items()
    )


def _heard(model: Any, mixture: Any) -> Any:
    """Computes the mixture's log-magnitude at the level to which the model normalises it."""
    import numpy as np

    from pipeline import features

    level = features.active_level_db(mixture.waveform)
    trained = model.info.constants.get("active_level_db")
    if trained is None or not np.isfinite(level):
        return mixture.log_magnitude
    return mixture.log_magnitude + np.float32((trained - level) / 20)


def _progress(done: Iterable[Any], total: int, initial: int) -> Iterable[Any]:
    import tqdm

    return tqdm.tqdm(done, total=total, initial=initial, unit="mixture", dynamic_ncols=True)


def _seconds(rows: Sequence[dict]) -> Iterator[float]:
    return iter({row["mixture_id"]: row["seconds"] for row in rows}.values())


def screen(summary: dict[str, Any]) -> str:
    """Formats the summary for the terminal."""
    from export.evaluation import tables

    parts = []
    for data in summary["datasets"]:
        hours = data["seconds"] / 3600
        names = tables.metric_names(data["systems"])
        what = "SI-SDR improvement in dB, then means over all" if "si_sdr" in names else "Means"
        parts.append(
            f"\n{data['name']}, {summary['settings']['split']}: {data['mixtures']} mixtures, "
            f"{hours:.2f} h. {what}\n"
        )
        parts.append(tables.summary_table(data["systems"], names).markdown())
        for difference in data["differences"]:
            if difference["figure"] == "si_sdr":
                parts.append(
                    f"{difference['system']} − {difference['baseline']}: "
                    f"{tables.number(difference['mean'], 2)} dB "
                    f"[{tables.number(difference['low'], 2)}, "
                    f"{tables.number(difference['high'], 2)}], "
                    f"better in {100 * (difference['better'] or 0):.0f} % of the mixtures"
                )
    conditions = tables.conditions_table(summary["datasets"])
    if conditions is not None:
        parts.append(f"\nAll conditions, mean [95 %]\n\n{conditions.markdown()}")
    return "\n".join(parts)


def _define_flags() -> None:
    # Not on import: otherwise two commands used from one program would both define --output_dir.
    flags.DEFINE_multi_string(
        "model",
        [],
        "A SavedModel's folder, a trainer's --model_dir, a .keras file, or the name of a model "
        "shipped with the package. Repeat it to compare models; without it only the oracles are "
        "evaluated.",
    )
    flags.DEFINE_multi_string(
        "data_dir",
        [],
        "A dataset's folder, made by pipeline.preprocess, or a folder of mixtures "
        "and their voices laid out as in LibriMix (mix_clean, s1, s2). May be repeated.",
    )
    flags.DEFINE_enum("split", "test", schema.SPLITS, "Split of the dataset.")
    flags.DEFINE_string("output_dir", "report", "Folder for the results.")
    flags.DEFINE_integer(
        "max_mixtures", None, "Use only the first mixtures of each dataset.", lower_bound=1
    )
    flags.DEFINE_list(
        "conditions",
        ["clean"],
        "Test conditions, made from the dataset's own voices: clean, the mixtures as they are; "
        "noise, at 10 dB; room, with echo; turns, conversations of 40 s; solo, one person.",
    )
    flags.DEFINE_string(
        "noise_dir", "", "Folder of recordings for noise (default: coloured noise)."
    )
    flags.DEFINE_string(
        "room_dir", "", "Folder of impulse responses for room (default: synthetic)."
    )
    flags.DEFINE_list(
        "metrics",
        list(_METRICS),
        f"Metrics, of {', '.join(_METRICS)}; SI-SDR is always included.",
    )
    flags.DEFINE_integer(
        "workers", None, "Processes that compute the figures; all cores by default.", lower_bound=1
    )
    flags.DEFINE_integer(
        "examples",
        1,
        "Number of best, median and worst mixtures each in the report, per dataset.",
        lower_bound=0,
        upper_bound=10,
    )
    flags.DEFINE_bool("audio", True, "Include their audio in the report.")
    flags.DEFINE_bool(
        "overwrite", False, "Replace results of other settings once the new ones are complete."
    )
    flags.DEFINE_multi_enum(
        "clusterer",
        [],
        ["kmeans", "mean_shift"],
        "Also cluster the embeddings of deep_clustering and chimera with scikit-learn, in rows of "
        "their own. May be repeated.",
    )


def main(arguments: list[str]) -> None:
    """Runs the command."""
    if arguments:
        raise flags.Error(f"{arguments[0]!r} is no flag; models are given as --model")
    # One thread per worker; the workers inherit this, and TensorFlow's own threads ignore it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    summary = evaluate(
        [pretrained.resolve(model) for model in flags.FLAGS.model],
        flags.FLAGS.data_dir,
        flags.FLAGS.output_dir,
        split=flags.FLAGS.split,
        max_mixtures=flags.FLAGS.max_mixtures,
        metric_names=flags.FLAGS.metrics,
        workers=flags.FLAGS.workers,
        examples=flags.FLAGS.examples,
        audio=flags.FLAGS.audio,
        overwrite=flags.FLAGS.overwrite,
        clusterers=flags.FLAGS.clusterer,
        conditions=flags.FLAGS.conditions,
        noise_dir=flags.FLAGS.noise_dir,
        room_dir=flags.FLAGS.room_dir,
    )
    if summary is not None:
        print(screen(summary))
        run = summary["run"]
        print(
            f"\n{run['mixtures']} mixtures in {run['seconds']:.0f} s, {run['workers']} workers; "
            f"{run['peak_memory_mb']} MB at most in the main process\n"
            f"{os.path.join(flags.FLAGS.output_dir, 'report.html')}"
        )


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
