"""The folder of a run: its settings, what is needed to go on, the best model, the log.

    config.json     all settings, and the facts of the dataset
    best.keras      the separator that was best in validation, whole
    last/           weights, optimizer and the state of everything else after the last epoch
    log.csv         a row an epoch
    curves.png      the same, drawn
    tensorboard/    events

Everything is written under a temporary name and renamed; `last/state.json` names the weights that
belong to it and is written after them, so that at any moment the folder is whole.
"""

import contextlib
import csv
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from pipeline import dataset, errors, version
from trainer import config as config_lib


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
        self.best = self.path / "best.keras"
        self.last = self.path / "last"
        self.curves = self.path / "curves.png"
        self.tensorboard = self.path / "tensorboard"

    def claim(self, config: config_lib.Config, info: dataset.DatasetInfo) -> State:
        """Makes the folder this run's, or finds that it is already.

        Returns:
            The state to start from.

        Raises:
            UserError: another run is there; the message names what differs.
        """
        facts = dataset_facts(info)
        path = self.path / "config.json"
        if path.exists():
            self._check_same(path, config, facts)
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
            write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        return self.read_state()

    def _check_same(
        self, path: pathlib.Path, config: config_lib.Config, facts: dict[str, Any]
    ) -> None:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            before = config_lib.Config.from_json(stored["settings"])
            differences = before.differences(config)
            differences += [
                f"dataset's {name} {stored['dataset'].get(name)} → {value}"
                for name, value in facts.items()
                if stored["dataset"].get(name) != value
            ]
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise errors.UserError(f"{path} is damaged ({error}); choose another folder") from error
        if differences:
            raise errors.UserError(
                f"{self.path} holds a run with other settings ({'; '.join(differences)}); "
                "choose another --model_dir or the same settings"
            )

    def has_state(self) -> bool:
        """Whether a run has ended an epoch here."""
        return (self.last / "state.json").exists()

    def read_state(self) -> State:
        """Where the run is; the start where nothing was kept yet.

        Raises:
            UserError: the state is damaged.
        """
        path = self.last / "state.json"
        if not path.exists():
            return State()
        try:
            state = State(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, json.JSONDecodeError) as error:
            raise errors.UserError(f"{path} is damaged: {error}") from error
        if not (self.last / state.weights).is_file():
            raise errors.UserError(f"{self.last / state.weights} is missing; start a new run")
        return state

    def write_state(self, state: State, save_weights: Callable[[pathlib.Path], object]) -> None:
        """Keeps what is needed to go on: weights, then the state that names them, then the log."""
        before = state.weights
        state.weights = f"epoch-{state.epoch:05d}.weights.h5"
        write_atomically(self.last / state.weights, save_weights)
        text = json.dumps(dataclasses.asdict(state), indent=1) + "\n"
        write_atomically(
            self.last / "state.json", lambda temporary: temporary.write_text(text, "utf-8")
        )
        if before and before != state.weights:
            (self.last / before).unlink(missing_ok=True)
        self._write_log(state.history)

    def _write_log(self, history: list[dict[str, float]]) -> None:
        names = list(dict.fromkeys(name for row in history for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_atomically(
            self.path / "log.csv", lambda temporary: temporary.write_text(text.getvalue(), "utf-8")
        )


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


def write_atomically(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """Has `write` write a temporary file beside `path`, and renames it.

    The temporary name ends as `path` does, since some libraries go by the ending.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
