"""The settings of a training run: from flags to a frozen dataclass, and to JSON and back."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

from absl import flags, logging

from pipeline import errors, schema
from pipeline.dataset import dataset
from pipeline.io import stored_json


class SettingsError(errors.UserError):
    """Settings that contradict each other, independent of the dataset."""


def _setting(
    default: Any,
    kind: str,
    help: str,
    *,
    free: bool = False,
    **limits: Any,
) -> Any:
    """Defines a field that is also a flag.

    Args:
        default: default of the field and the flag.
        kind: type of the flag: `integer`, `float`, `boolean`, `enum`, `string`, `list` (of numbers)
            or `multi_string`.
        help: help text of the flag.
        free: whether a run may be resumed with another value.
        **limits: further arguments of absl's DEFINE function.
    """
    metadata = {"kind": kind, "help": help, "free": free, "limits": limits}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run. Each field is a flag, documented by its help text."""

    data_dir: str = _setting(
        "",
        "string",
        "Folder of the dataset, local or in an object store (s3://…, gs://…).",
        free=True,
    )
    model: str = _setting("lstm", "string", "Name of the network: ffn, lstm, …")
    units: int | None = _setting(
        None,
        "integer",
        "Units of each hidden layer (default: depends on the network, mostly 300).",
        lower_bound=1,
    )
    layers: int | None = _setting(
        None, "integer", "Hidden layers (default: depends on the network, mostly 2).", lower_bound=1
    )
    dropout: float | None = _setting(
        None, "float", "Dropout rate of hidden units (default: depends on the network, mostly 0).",
        lower_bound=0, upper_bound=0.95,
    )  # fmt: skip
    head: str | None = _setting(
        None, "enum", "Activation of the masks (default: depends on the network, sigmoid or "
        "relu). With sigmoid, psm is clipped to [0, 1]; with linear, it is not.",
        enum_values=["sigmoid", "linear", "relu", "softmax"],
    )  # fmt: skip
    model_arg: tuple[str, ...] = _setting(
        (), "multi_string", "Any other setting of the network, as NAME=VALUE; may be repeated."
    )
    assignment: str = _setting(
        "pit", "enum", "pit: all voices, under the best permutation over the whole window; "
        "fixed: only the mask of voice 1, as in the original experiment.",
        enum_values=["pit", "fixed"],
    )  # fmt: skip
    target: str = _setting(
        "psm", "enum", "Ideal mask to learn (losses on masks).", enum_values=list(schema.MASKS)
    )
    loss: str | None = _setting(
        None, "enum", "mask: squared error of masks; sisdr: negative SI-SDR of the voices; snr: "
        "negative SNR, with a threshold; clustering: affinity of embeddings. Default: sisdr for "
        "waveform networks, clustering for networks with embeddings, mask for the others.",
        enum_values=["mask", "sisdr", "snr", "clustering"],
    )  # fmt: skip
    mixing: str | None = _setting(
        None, "enum", "static: the dataset's mixtures; dynamic: new mixtures of its clean "
        "utterances in every step. Default: dynamic for waveform networks if the dataset has "
        "utterances, otherwise static.",
        enum_values=["static", "dynamic"],
    )  # fmt: skip
    frames: int | None = _setting(
        None, "integer", "Frames in a window, 8 ms each at 8 kHz (default: 100; 500 with the "
        "losses sisdr and snr).",
        lower_bound=2,
    )  # fmt: skip
    batch_size: int | None = _setting(
        None, "integer", "Windows in a batch (default: 64; 8 with the losses sisdr and snr).",
        lower_bound=1,
    )  # fmt: skip
    utterances_manifest: tuple[str, ...] = _setting(
        (), "multi_string", "Dynamic mixing: mix the recordings listed in this CSV file "
        "(path,speaker,split), read once into memory, instead of the dataset's utterances. "
        "Validation and test speakers of the dataset are excluded. May be repeated.",
    )  # fmt: skip
    max_snr_db: float = _setting(
        5.0, "float", "Dynamic mixing: largest level difference of two voices, in dB.",
        lower_bound=0, upper_bound=60,
    )  # fmt: skip
    speed: float = _setting(
        0.0, "float", "Dynamic mixing: largest relative speed change of a voice, such as 0.1 for "
        "10 %.",
        lower_bound=0, upper_bound=0.5,
    )  # fmt: skip
    noise: float = _setting(
        0.0, "float", "Dynamic mixing: share of mixtures with noise. The model learns to separate "
        "voices in noise; its outputs still add up to the whole mixture.",
        lower_bound=0, upper_bound=1,
    )  # fmt: skip
    noise_dir: str = _setting(
        "",
        "string",
        "Folder of noise recordings, read once into memory (default: synthetic coloured noise).",
    )
    noise_snr_db: tuple[float, float] = _setting(
        (5.0, 25.0), "list", "Lowest and highest level of the voices relative to the noise, in dB."
    )
    rooms: float = _setting(
        0.0, "float", "Dynamic mixing: share of mixtures with reverberation.", lower_bound=0,
        upper_bound=1,
    )  # fmt: skip
    room_dir: str = _setting(
        "",
        "string",
        "Folder of impulse responses: each file is a room, each channel a position in it "
        "(default: synthetic responses).",
    )
    sparse: float = _setting(
        0.0, "float", "Dynamic mixing: share of windows in which voices take turns, start late, "
        "pause or stop early, or only one speaks; in the others all speak all the time.",
        lower_bound=0, upper_bound=1,
    )  # fmt: skip
    workers: int = _setting(
        2,
        "integer",
        "Dynamic mixing: threads. On JAX and PyTorch, only two or more mix ahead of the step.",
        free=True,
        lower_bound=1,
        upper_bound=256,
    )
    epochs: int = _setting(
        50, "integer", "Number of epochs; a run may be resumed with more.", free=True, lower_bound=1
    )
    steps_per_epoch: int | None = _setting(
        None, "integer", "Batches in an epoch; the next epoch continues where it ended (default: "
        "all windows, or as many seconds as the clean utterances have).",
        lower_bound=1,
    )  # fmt: skip
    learning_rate: float = _setting(
        1e-3, "float", "Learning rate at the start or after the warm-up.", lower_bound=1e-9
    )
    warmup_steps: int = _setting(
        0, "integer", "Steps over which the learning rate rises from zero.", lower_bound=0
    )
    schedule: str = _setting(
        "plateau", "enum", "plateau: halves the rate when validation has not improved for three "
        "epochs; cosine: decays to zero over all epochs, so the rate changes, with a message, if "
        "a run is resumed with other --epochs; constant.",
        enum_values=["plateau", "cosine", "constant"],
    )  # fmt: skip
    clip_norm: float = _setting(
        5.0, "float", "Largest global norm of the gradients; 0: no limit.", lower_bound=0
    )
    optimizer: str = _setting(
        "adam", "enum", "adam; muon: orthogonalised steps for all matrices but those of the last "
        "layer, and Adam for the rest. Muon learns more per step at rates of about 5e-3.",
        enum_values=["adam", "muon"],
    )  # fmt: skip
    weight_decay: float = _setting(
        0.0, "float", "Decoupled weight decay, as in AdamW.", lower_bound=0, upper_bound=1
    )
    ema: float = _setting(
        0.0, "float", "Validate and keep an exponential moving average of the weights with this "
        "momentum, such as 0.999; 0: the weights themselves.",
        lower_bound=0, upper_bound=0.999999,
    )  # fmt: skip
    init_from: str = _setting(
        "", "string", "Start from the weights of this run, .keras file or exported model of the "
        "same network; a tcn may have additional blocks, which are identities at first.",
    )  # fmt: skip
    patience: int = _setting(
        10, "integer", "Stop after this many epochs without improvement in validation; 0: never. "
        "More patience continues a run that was stopped.",
        free=True, lower_bound=0,
    )  # fmt: skip
    max_minutes: float = _setting(
        0.0, "float", "Stop after the epoch in which the run reaches this total time in "
        "minutes, including earlier sessions; 0: no limit.",
        free=True, lower_bound=0,
    )  # fmt: skip
    seed: int = _setting(
        0, "integer", "Random seed of weights and order.", lower_bound=0, upper_bound=2**31 - 1
    )
    mixed_precision: bool = _setting(
        False, "boolean", "Compute in bfloat16; keep weights, masks and loss in float32."
    )
    jit_compile: bool = _setting(
        False, "boolean", "Compile the training step with XLA (always on with JAX).", free=True
    )
    cache: bool = _setting(
        False, "boolean", "Static mixing: keep all windows in memory after the first epoch.",
        free=True,
    )  # fmt: skip
    shuffle_buffer: int = _setting(
        4096, "integer", "Static mixing: windows in the shuffle buffer. Each takes 39 KB if the "
        "dataset is remote or damaged, otherwise almost nothing.",
        lower_bound=1,
    )  # fmt: skip
    skip_corrupt: bool = _setting(
        False, "boolean", "Read the dataset's mixtures once before the start and leave out damaged "
        "records.",
        free=True,
    )  # fmt: skip
    tensorboard: bool = _setting(
        True, "boolean", "Write events for TensorBoard (needs TensorFlow).", free=True
    )

    @classmethod
    def from_flags(cls, values: flags.FlagValues) -> "Config":
        """Returns the settings given by the parsed flags.

        Raises:
            flags.Error: a value is not a finite number.
        """
        given = {field.name: getattr(values, field.name) for field in dataclasses.fields(cls)}
        if values.network:
            logging.warning("--network is now --model_arg; the old name will be removed")
            given["model_arg"] = [*given["model_arg"], *values.network]
        for name, value in given.items():
            # absl's bounds accept NaN.
            if isinstance(value, float) and not math.isfinite(value):
                raise flags.IllegalFlagValueError(f"--{name}={value} is not a finite number")
        try:
            low, high = map(float, given["noise_snr_db"])
            if not -math.inf < low <= high < math.inf:
                raise ValueError("not in order")
        except ValueError as error:
            raise flags.IllegalFlagValueError(
                "--noise_snr_db takes two numbers, the lower first, such as 5,25"
            ) from error
        return cls.from_json({**given, "noise_snr_db": [low, high]})

    def to_json(self) -> dict[str, Any]:
        """Returns the settings for JSON."""
        return json.loads(stored_json.dumps(self))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Config":
        """Returns the settings from JSON; missing ones (older versions) get their default.

        Raises:
            UserError: a setting is unknown to this version.
            ValueError: a value has the wrong type; the message names it.
        """
        if "network" in values:  # The name of `model_arg` until version 0.1.
            values = {"model_arg": values["network"], **values}
            del values["network"]
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise errors.UserError(f"settings that this version does not know: {unknown}")
        return stored_json.convert(values, cls)

    def differences(self, other: "Config") -> list[str]:
        """Lists settings that must be equal to resume a run but differ: `name: this → other`."""
        return [
            f"--{field.name} {getattr(self, field.name)} → {getattr(other, field.name)}"
            for field in dataclasses.fields(self)
            if not field.metadata["free"]
            and getattr(self, field.name) != getattr(other, field.name)
        ]

    def network_settings(self) -> dict[str, Any]:
        """Returns the arguments of the network's constructor, except the number of outputs.

        Raises:
            SettingsError: `--model_arg` is not NAME=VALUE, or names an argument set elsewhere.
        """
        named: dict[str, Any] = {
            "units": self.units,
            "num_layers": self.layers,
            "dropout": self.dropout,
            "head": self.head,
        }
        settings = {name: value for name, value in named.items() if value is not None}
        for item in self.model_arg:
            name, equals, text = item.partition("=")
            if not equals or not name:
                raise SettingsError(f"--model_arg={item} is not NAME=VALUE")
            if name in _NOT_OF_THE_NETWORK:
                raise SettingsError(f"--model_arg={item}: {_NOT_OF_THE_NETWORK[name]}")
            try:
                settings[name] = json.loads(text)
            except json.JSONDecodeError:
                settings[name] = text
        return settings

    def num_outputs(self, num_sources: int) -> int:
        """Returns the number of masks of the network."""
        return 1 if self.assignment == "fixed" else num_sources

    def check(
        self,
        info: dataset.DatasetInfo,
        before: "Config | None" = None,
        learns_masks: bool = True,
    ) -> None:
        """Checks that the settings fit each other and the dataset.

        Settings that are left open are not checked.

        Args:
            info: info of the dataset.
            before: settings of the run to resume, if any; a setting without effect is accepted if
                it is unchanged, since an older version may have accepted it.
            learns_masks: whether the network learns masks with this loss.

        Raises:
            SettingsError: settings contradict each other, or one has no effect.
            UserError: the dataset lacks what the settings need.
        """
        self._check_effect(before, learns_masks)
        if self.assignment == "fixed" and self.loss not in (None, "mask"):
            raise SettingsError(f"--assignment=fixed is for --loss=mask, not {self.loss}")
        if self.assignment == "fixed" and self.network_settings().get("head") == "softmax":
            raise SettingsError(
                "--assignment=fixed has a single mask, which --head=softmax would always make 1"
            )
        where = self.data_dir
        if "train" not in info.splits or not info.splits["train"].mixtures or info.mean is None:
            raise errors.UserError(
                f"{where} has no train split (only {', '.join(sorted(info.splits)) or 'nothing'})"
            )
        stored = self.mixing != "dynamic" and self.loss == "mask"
        if stored and self.target not in info.masks:
            raise errors.UserError(
                f"{where} stores the masks {', '.join(info.masks) or '(none)'}, not {self.target}; "
                f"make it with --masks={self.target} or choose another --target"
            )
        if self.assignment == "fixed" and info.num_sources != 2:
            raise errors.UserError(
                f"--assignment=fixed is for two voices, but {where} has {info.num_sources}"
            )

    def _check_effect(self, before: "Config | None", learns_masks: bool) -> None:
        """Raises `SettingsError` if a given setting has no effect."""
        rules = list(_EFFECTS)
        if not learns_masks:
            rules.append((("target",), f"losses on masks, not --loss={self.loss}", lambda _: False))
        for names, what, holds in rules:
            for name in names if not holds(self) else ():
                value = getattr(self, name)
                kept = before is not None and value == getattr(before, name)
                if value != getattr(Config, name) and not kept:
                    raise SettingsError(f"--{name} is for {what}")


# Arguments of a network's constructor that are determined elsewhere.
_NOT_OF_THE_NETWORK = {
    "name": "networks have no name here",
    "dtype": "the precision is chosen by --mixed_precision",
    "num_outputs": "the number of outputs follows from the voices in the dataset",
    "num_bins": "the number of bins follows from the dataset",
}

# Settings that have an effect only under a condition: names, the condition in words, and whether it
# holds (or is still open).
_EFFECTS: tuple[tuple[tuple[str, ...], str, Callable[[Config], bool]], ...] = (
    (
        (
            "utterances_manifest", "max_snr_db", "speed", "noise", "noise_dir", "noise_snr_db",
            "rooms", "room_dir", "sparse", "workers",
        ),
        "--mixing=dynamic; static mixtures are as they are stored",
        lambda config: config.mixing != "static",
    ),
    (
        ("cache", "shuffle_buffer"),
        "--mixing=static; dynamic mixtures are made anew in every step",
        lambda config: config.mixing != "dynamic",
    ),
    (("noise_dir", "noise_snr_db"), "--noise above 0", lambda config: config.noise > 0),
    (("room_dir",), "--rooms above 0", lambda config: config.rooms > 0),
    (("target",), "losses on masks, not on waveforms",
     lambda config: config.loss not in ("sisdr", "snr")),
)  # fmt: skip


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines a flag for each field of `Config`.

    Args:
        values: flag registry; by default that of the process.
    """
    for field in dataclasses.fields(Config):
        define = getattr(flags, f"DEFINE_{field.metadata['kind']}")
        default: Any = field.default
        if isinstance(default, tuple):
            default = [f"{value:g}" if isinstance(value, float) else value for value in default]
        define(
            field.name,
            default,
            help=field.metadata["help"],
            flag_values=values,
            **field.metadata["limits"],
        )
    flags.DEFINE_multi_string(
        "network", [], help="The old name of --model_arg.", flag_values=values
    )
