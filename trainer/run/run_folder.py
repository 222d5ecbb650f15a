"""The folder of a run: settings, state for resuming, best model, log.

    config.json     all settings, and the facts of the dataset
    best.keras      the whole separator with the best validation result
    last/           weights, optimizer and all other state after the last epoch
    log.csv         one row per epoch
    curves.png      the same as curves
    tensorboard/    TensorBoard events
    _LOCK           exists while a run is in progress

Every file is written under a temporary name, flushed to disk, and renamed. `last/state.json` names
the weights that belong to it and is written after them. The folder is therefore consistent at any
moment, even after a power cut.
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
# Names of temporary files that an interrupted run may have left.
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
    """The progress of a run.

    Attributes:
        epoch: number of completed epochs.
        stopped: whether early stopping has ended the run.
        history: one row per epoch: metric names and values.
        callbacks: state of the callbacks, by name.
        weights: name of the file in `last/` with weights and optimizer, or empty.
    """

    epoch: int = 0
    stopped: bool = False
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    callbacks: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    weights: str = ""

    @property
    def minutes(self) -> float:
        """Total duration of all epochs."""
        return sum(row.get("seconds", 0.0) for row in self.history) / 60


class RunFolder:
    """The folder of a run.

    Args:
        path: path of the folder; it need not exist yet.
    """

    def __init__(self, path: str) -> None:
        self.path = pathlib.Path(path)
        self.best = self.path / file_names.BEST_MODEL
        self.last = self.path / "last"
        self.curves = self.path / file_names.CURVES
        self.tensorboard = self.path / "tensorboard"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the folder against other processes; creates it if it does not exist.

        Folders created here are removed at the end if they are empty.

        Raises:
            UserError: another process is training in it.
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
            f"{self.path}: another run (process {owner}) is using this folder; wait for it, "
            "or choose another --model_dir"
        )

    def claim(self, config: config_lib.Config, info: dataset.DatasetInfo) -> State:
        """Creates the run in this folder or checks that it is the same; the caller holds the lock.

        Incomplete files of an interrupted run are removed.

        Returns:
            The state to start from.

        Raises:
            UserError: the folder has a different run; the message names the differences.
        """
        facts = dataset_facts(info)
        path = self.path / file_names.RUN_CONFIG
        if path.exists():
            before = self._read_stored(path)
            # A run that failed before the end of its first epoch has nothing worth keeping.
            if self.has_state() or self.best.exists():
                self._check_same(*before, config, facts)
        elif any(self.last.glob("*")) or self.best.exists():
            raise errors.UserError(f"{self.path} holds a run without config.json; choose another")
        self.path.mkdir(parents=True, exist_ok=True)
        settings = {
            "version": version.VERSION,
            "settings": config.to_json(),
            "dataset": facts,
        }
        text = json.dumps(settings, indent=2) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            atomic.write_text(path, text, durable=True)
        # Only now: a folder with weights but without settings would be refused.
        self.last.mkdir(exist_ok=True)
        state = self.read_state()
        self._remove_leftovers(state)
        return state

    def read_settings(self) -> config_lib.Config | None:
        """Returns the settings of the run in the folder, or None without a run.

        Raises:
            UserError: the settings are damaged.
        """
        path = self.path / file_names.RUN_CONFIG
        return self._read_stored(path)[0] if path.exists() else None

    def _read_stored(self, path: pathlib.Path) -> tuple[config_lib.Config, dict[str, Any]]:
        """Returns the settings and the facts of the dataset."""
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
        """Whether a run has completed an epoch here."""
        return (self.last / file_names.RUN_STATE).exists()

    def read_state(self) -> State:
        """Returns the state of the run, or the initial state if none is stored.

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
        """Passes the weights file of the state to `load`.

        Raises:
            UserError: the weights are damaged.
        """
        path = self.last / state.weights
        try:
            load(path)
        except Exception as error:  # HDF5 and Keras raise various errors.
            raise errors.UserError(f"{path} is damaged ({error}); start a new run") from error

    def write_state(self, state: State, save_weights: Callable[[pathlib.Path], object]) -> None:
        """Saves the weights, then the state that names them, then the log."""
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
    """Returns the facts of the dataset that determine a model: its plan and constants."""
    return {
        "plan_digest": info.plan_digest,
        "sample_rate": info.sample_rate,
        "num_sources": info.num_sources,
        "mean": info.mean,
        "deviation": info.deviation,
        "active_level_db": info.active_level_db,
    }
