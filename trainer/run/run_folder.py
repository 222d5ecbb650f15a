"""The folder of a run: its settings, what is needed to go on, the best model, the log.

    config.json     all settings, and the facts of the dataset
    best.keras      the separator that was best in validation, whole
    last/           weights, optimizer and the state of everything else after the last epoch
    log.csv         a row an epoch
    curves.png      the same, drawn
    tensorboard/    events
    _LOCK           while a run is going on

Everything is written under a temporary name, waited for until it is on the disk, and renamed;
`last/state.json` names the weights that belong to it and is written after them, so that at any
moment, that of a power cut too, the folder is whole.
"""

import contextlib
import csv
import dataclasses
import io
import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from pipeline import errors, file_names, version
from pipeline.dataset import dataset
from pipeline.io import atomic, file_lock
from trainer import config as config_lib

_WEIGHTS = r"epoch-\d{5,}\.weights\.h5"
# What this process's predecessors may have left half written.
_NAMES = (
    file_names.RUN_CONFIG,
    file_names.BEST_MODEL,
    file_names.TRAINING_LOG,
    file_names.CURVES,
    file_names.RUN_STATE,
)
_OURS = re.compile("|".join([*map(re.escape, _NAMES), _WEIGHTS]))


@dataclasses.dataclass
class State:
    """Where a run is.

    Attributes:
        epoch: epochs that are done.
        stopped: early stopping has ended the run.
        history: a row for each epoch: names and figures.
        callbacks: state of the callbacks, by name.
        weights: file in `last/` with weights and optimizer, or empty.
    """

    epoch: int = 0
    stopped: bool = False
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    callbacks: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    weights: str = ""

    @property
    def minutes(self) -> float:
        """That all epochs took together."""
        return sum(row.get("seconds", 0.0) for row in self.history) / 60


class RunFolder:
    """A folder that a run is kept in.

    Args:
        path: need not exist yet.
    """

    def __init__(self, path: str) -> None:
        self.path = pathlib.Path(path)
        self.best = self.path / file_names.BEST_MODEL
        self.last = self.path / "last"
        self.curves = self.path / file_names.CURVES
        self.tensorboard = self.path / "tensorboard"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes off the folder, which is made if there is none.

        What this has made is removed at the end where nothing was put into it.

        Raises:
            UserError: another process trains in it.
        """
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with file_lock.hold(str(self.path / file_names.LOCK), self._refusal):
                yield
        finally:
            with contextlib.suppress(OSError):
                for path in made:
                    path.rmdir()

    def _refusal(self, owner: str) -> errors.UserError:
        return errors.UserError(
            f"{self.path}: another run (process {owner}) is going on in this folder; wait for it, "
            "or choose another --model_dir"
        )

    def claim(self, config: config_lib.Config, info: dataset.DatasetInfo) -> State:
        """Makes the folder this run's, or finds that it is already; the caller holds the lock.

        What a run that was killed had not written to its end is removed.

        Returns:
            The state to start from.

        Raises:
            UserError: another run is there; the message names what differs.
        """
        facts = dataset_facts(info)
        path = self.path / file_names.RUN_CONFIG
        if path.exists():
            before = self._read_stored(path)
            # A start that failed before its first epoch has left nothing worth keeping.
            if self.has_state() or self.best.exists():
                self._check_same(*before, config, facts)
        elif self.last.exists() or self.best.exists():
            raise errors.UserError(f"{self.path} holds a run without config.json; choose another")
        self.path.mkdir(parents=True, exist_ok=True)
        self.last.mkdir(exist_ok=True)
        settings = {
            "version": version.VERSION,
            "settings": config.to_json(),
            "dataset": facts,
        }
        text = json.dumps(settings, indent=2) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            atomic.write_text(path, text, durable=True)
        state = self.read_state()
        self._remove_leftovers(state)
        return state

    def read_settings(self) -> config_lib.Config | None:
        """Those of the run that is there; None where there is none.

        Raises:
            UserError: they are damaged.
        """
        path = self.path / file_names.RUN_CONFIG
        return self._read_stored(path)[0] if path.exists() else None

    def _read_stored(self, path: pathlib.Path) -> tuple[config_lib.Config, dict[str, Any]]:
        """Settings, and the facts of the dataset."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return config_lib.Config.from_json(stored["settings"]), dict(stored["dataset"])
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise errors.UserError(f"{path} is damaged ({error}); choose another folder") from error

    def _check_same(
        self,
        before: config_lib.Config,
        stored: dict[str, Any],
        config: config_lib.Config,
        facts: dict[str, Any],
    ) -> None:
        differences = before.differences(config)
        differences += [
            f"dataset's {name} {stored.get(name)} → {value}"
            for name, value in facts.items()
            if stored.get(name) != value
        ]
        if differences:
            raise errors.UserError(
                f"{self.path} holds a run with other settings ({'; '.join(differences)}); "
                "choose another --model_dir or the same settings"
            )

    def _remove_leftovers(self, state: State) -> None:
        for path in (*self.path.iterdir(), *self.last.iterdir()):
            orphan = path.parent == self.last and re.fullmatch(_WEIGHTS, path.name)
            unfinished = _OURS.fullmatch(atomic.final_name(path.name) or "")
            if unfinished or (orphan and path.name != state.weights):
                path.unlink()

    def has_state(self) -> bool:
        """Whether a run has ended an epoch here."""
        return (self.last / file_names.RUN_STATE).exists()

    def read_state(self) -> State:
        """Where the run is; the start where nothing was kept yet.

        Raises:
            UserError: the state is damaged.
        """
        path = self.last / file_names.RUN_STATE
        if not path.exists():
            return State()
        try:
            state = State(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError, RecursionError) as error:
            raise errors.UserError(f"{path} is damaged: {error}") from error
        if not (self.last / state.weights).is_file():
            raise errors.UserError(f"{self.last / state.weights} is missing; start a new run")
        return state

    def load_weights(self, state: State, load: Callable[[pathlib.Path], object]) -> None:
        """Hands the state's weights to `load`.

        Raises:
            UserError: they are damaged.
        """
        path = self.last / state.weights
        try:
            load(path)
        except Exception as error:  # HDF5 and Keras raise what they like.
            raise errors.UserError(f"{path} is damaged ({error}); start a new run") from error

    def write_state(self, state: State, save_weights: Callable[[pathlib.Path], object]) -> None:
        """Keeps what is needed to go on: weights, then the state that names them, then the log."""
        before = state.weights
        state.weights = f"epoch-{state.epoch:05d}.weights.h5"
        with atomic.replacing(self.last / state.weights, durable=True) as temporary:
            save_weights(temporary)
        text = json.dumps(dataclasses.asdict(state), indent=1) + "\n"
        atomic.write_text(self.last / file_names.RUN_STATE, text, durable=True)
        if before and before != state.weights:
            (self.last / before).unlink(missing_ok=True)
        self._write_log(state.history)

    def _write_log(self, history: list[dict[str, float]]) -> None:
        names = list(dict.fromkeys(name for row in history for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        atomic.write_text(self.path / file_names.TRAINING_LOG, text.getvalue(), durable=True)


def dataset_facts(info: dataset.DatasetInfo) -> dict[str, Any]:
    """What of the dataset decides a model: its plan, and the constants that go into it."""
    return {
        "plan_digest": info.plan_digest,
        "sample_rate": info.sample_rate,
        "num_sources": info.num_sources,
        "mean": info.mean,
        "deviation": info.deviation,
        "active_level_db": info.active_level_db,
    }
