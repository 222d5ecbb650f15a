"""Test conditions beyond clean mixtures, generated reproducibly from a dataset's own voices.

`noise` and `room` modify the dataset's mixtures, `solo` keeps one of their voices, and `turns`
builds conversations from several utterances of two or more people. `docs/conditions.md` defines
them.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from export.evaluation import dataset_mixtures, librimix, oracles, scoring, turn_taking
from export.evaluation.dataset_mixtures import Mixture
from pipeline import errors, features, plan, schema
from pipeline.dataset import dataset
from pipeline.io import storage
from trainer.data import acoustics

CLEAN = "clean"
NAMES = (CLEAN, "noise", "room", "turns", "solo")
NOISE_SNR_DB = 10.0
CONVERSATION_SECONDS = 40.0
# Per dataset, each with a different pair of speakers.
MAX_CONVERSATIONS = 60

_TURN_SECONDS = (1.5, 6.0)
# Between two turns there is either a pause or an overlap, with equal probability.
_PAUSE_SECONDS = (0.2, 2.0)
_LONGEST_OVERLAP_SECONDS = 1.0
_FADE_SECONDS = 0.03
# Maximum number of utterances per speaker that are kept in memory.
_MAX_UTTERANCES = 12


@dataclasses.dataclass(frozen=True)
class Source:
    """The unit of evaluation: a dataset's mixtures under one condition.

    Attributes:
        name: its name in the results.
        base: the name of the dataset without the condition.
        path: the dataset's folder.
        info: the dataset's info, read by `pipeline.dataset.dataset`.
        split: one of the dataset's splits.
        limit: maximum number of mixtures, or None for all.
        condition: one of `NAMES`.
        surroundings: the source of noise and rooms.
    """

    name: str
    base: str
    path: str
    info: dataset.DatasetInfo
    split: str
    limit: int | None = None
    condition: str = CLEAN
    surroundings: acoustics.Surroundings | None = None

    @property
    def has_si_sdr(self) -> bool:
        """Whether every mixture contains all voices, so that SI-SDR and the like are defined."""
        return self.condition not in ("turns", "solo")

    def metrics(self, names: Sequence[str]) -> Sequence[str]:
        """Returns the metrics to measure if `names` are requested for mixtures."""
        special = {"turns": turn_taking.TURN_METRICS, "solo": turn_taking.SOLO_METRICS}
        return special.get(self.condition, names)

    @property
    def anchors(self) -> Sequence[str]:
        """The reference systems that are evaluated beside the models."""
        return oracles.ANCHORS if self.condition != "solo" else (oracles.MIXTURE,)

    def systems(self, models: Iterable[str]) -> list[str]:
        """Returns the names of the systems that are measured for the given models.

        These are the models themselves and, if people are silent at times, also each model within
        `export.separate`.
        """
        names = list(models)
        return names if self.has_si_sdr else [*names, *map(as_separated, names)]

    @property
    def scorer(self) -> scoring.Scorer:
        """The function that computes the rows of a mixture."""
        special: dict[str, scoring.Scorer] = {
            "turns": turn_taking.score_turns,
            "solo": turn_taking.score_solo,
        }
        return special.get(self.condition, scoring.score)

    @property
    def count(self) -> int:
        """Number of mixtures."""
        if self.condition == "turns":
            return len(self._pairs)
        mixtures = self.info.splits[self.split].mixtures
        return mixtures if self.limit is None else min(mixtures, self.limit)

    def read(self) -> Iterator[Mixture]:
        """Yields the mixtures, with one in memory at a time.

        Raises:
            DatasetError: a shard is missing or damaged.
        """
        if self.condition == "turns":
            return self._conversations()
        stored = self._stored(self.limit)
        if self.condition == CLEAN:
            return stored
        if self.condition == "solo":
            return map(_solo, stored)
        assert self.surroundings is not None
        change = _with_noise if self.condition == "noise" else _in_room
        return (change(mixture, self.surroundings) for mixture in stored)

    def _stored(self, limit: int | None = None) -> Iterator[Mixture]:
        """Returns the mixtures as they are stored, at most `limit` of them."""
        if isinstance(self.info, librimix.Info):
            return librimix.read(self.info, limit)
        return dataset_mixtures.read(self.path, self.info, self.split, limit)

    @functools.cached_property
    def _pairs(self) -> dict[tuple[str, ...], Mixture]:
        """The first mixture of each distinct set of speakers."""
        most = min(MAX_CONVERSATIONS, self.limit or MAX_CONVERSATIONS)
        found: dict[tuple[str, ...], Mixture] = {}
        for mixture in self._stored():
            found.setdefault(tuple(sorted(mixture.speakers)), mixture)
            if len(found) == most:
                break
        return found

    def _conversations(self) -> Iterator[Mixture]:
        wanted = {speaker for pair in self._pairs for speaker in pair}
        utterances: dict[str, dict[str, np.ndarray]] = {speaker: {} for speaker in wanted}
        # Mixtures may cut the same utterance to different lengths: keep the longest.
        for mixture in self._stored():
            for speaker, name, voice in zip(
                mixture.speakers, mixture.utterances, mixture.sources, strict=True
            ):
                own = utterances.get(speaker)
                if own is None or (name not in own and len(own) == _MAX_UTTERANCES):
                    continue
                if name not in own or len(own[name]) < len(voice):
                    own[name] = voice.copy()
        max_snr_db = float(self.info.config.get("max_snr_db", 5.0))
        for mixture in self._pairs.values():
            spoken = [list(utterances[speaker].values()) for speaker in mixture.speakers]
            yield conversation(mixture, spoken, max_snr_db)


def as_separated(name: str) -> str:
    """Returns the system name of a model that runs within `export.separate`."""
    return f"{name}, export.separate"


def open_all(
    paths: Mapping[str, str],
    split: str,
    limit: int | None = None,
    names: Sequence[str] = (CLEAN,),
    noise_dir: str = "",
    room_dir: str = "",
    rate: int | None = None,
) -> list[Source]:
    """Opens every dataset under every condition.

    Args:
        paths: the datasets' folders by name.
        split: `train`, `valid` or `test`.
        limit: maximum number of mixtures of each, or None for all.
        names: the conditions' names.
        noise_dir: folder of recordings for `noise`; synthetic noise if empty.
        room_dir: folder of impulse responses for `room`; synthetic ones if empty.
        rate: the rate, in Hz, to which recordings of external test sets are resampled; None for
            their own.

    Raises:
        UserError: a condition is unknown, a dataset lacks the split, a folder is given but not
            needed, or a folder holds no recording.
    """
    unknown = sorted(set(names) - set(NAMES))
    if unknown or not names:
        raise errors.UserError(
            f"--conditions: {', '.join(unknown) or 'nothing'} is unknown; known are "
            f"{', '.join(NAMES)}"
        )
    for condition, folder in (("noise", noise_dir), ("room", room_dir)):
        if folder and condition not in names:
            raise errors.UserError(f"--{condition}_dir is for --conditions={condition}")
    found = []
    for name, path in paths.items():
        info = librimix.read_info(path, split, rate) or dataset.read(path)
        if split not in info.splits or not info.splits[split].mixtures:
            there = ", ".join(s for s in info.splits if info.splits[s].mixtures) or "nothing"
            raise errors.UserError(f"{path} has no mixtures in split {split}; it has {there}")
        around = acoustics.Surroundings(info.sample_rate, noise_dir, room_dir)
        for condition in [known for known in NAMES if known in names]:
            title = name if condition == CLEAN else f"{name}, {condition}"
            found.append(Source(title, name, path, info, split, limit, condition, around))
    return found


def fingerprints(noise_dir: str, room_dir: str) -> dict[str, Any]:
    """Returns the paths of the noise and room folders, and the SHA-256 of their files."""
    folders = {"noise_dir": noise_dir, "room_dir": room_dir}
    return {
        name: {"path": folder, "sha256": _fingerprint(folder)}
        for name, folder in folders.items()
        if folder
    }


def _fingerprint(folder: str) -> str:
    digest = hashlib.sha256()
    for name in storage.list_files(folder).files:
        data = storage.read_bytes(storage.join(folder, name))
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def _generator(what: str, mixture_id: str) -> np.random.Generator:
    key = hashlib.sha256(f"{what}/{mixture_id}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))


def _with_noise(mixture: Mixture, surroundings: acoustics.Surroundings) -> Mixture:
    random = _generator("noise", mixture.id)
    noise = surroundings.noise(random, mixture.voices.sum(axis=0), NOISE_SNR_DB)
    return _stored(mixture, mixture.voices, noise)


def _in_room(mixture: Mixture, surroundings: acoustics.Surroundings) -> Mixture:
    random = _generator("room", mixture.id)
    return _stored(mixture, surroundings.in_room(random, mixture.voices))


def _solo(mixture: Mixture) -> Mixture:
    """Keeps one voice, chosen at random, and silences the others."""
    speaker = int(_generator("solo", mixture.id).integers(len(mixture.speakers)))
    voices = np.zeros_like(mixture.voices)
    voices[speaker] = mixture.voices[speaker]
    made = _stored(mixture, voices)
    return dataclasses.replace(
        made, speakers=mixture.speakers[speaker : speaker + 1], sexes=(mixture.sexes[speaker],)
    )


def conversation(
    mixture: Mixture, utterances: Sequence[Sequence[np.ndarray]], max_snr_db: float
) -> Mixture:
    """Builds forty seconds of conversation in which the speakers of a mixture take turns.

    Args:
        mixture: supplies the speakers, the name and the rate.
        utterances: at least one per speaker, int16 `[sample]`. They are used in random order, in
            turns of 1.5 to 6 s, and repeated if there are not enough of them.
        max_snr_db: the speakers' active levels are shifted by up to half of this.
    """
    rate = mixture.rate
    random = _generator("turns", mixture.id)
    num_samples = round(CONVERSATION_SECONDS * rate)
    voices = np.zeros((len(utterances), num_samples), np.float32)
    moves = random.uniform(-max_snr_db / 2, max_snr_db / 2, len(utterances))
    if len(moves) == 2:
        moves[1] = -moves[0]
    material = [
        _turns(random, own, rate, plan.TARGET_LEVEL_DB + move)
        for own, move in zip(utterances, moves, strict=True)
    ]
    speaker = int(random.integers(len(utterances)))
    piece, begin = next(material[speaker]), 0
    while begin < num_samples:
        piece = piece[: num_samples - begin]
        voices[speaker, begin : begin + len(piece)] += _faded(piece, round(_FADE_SECONDS * rate))
        begin += len(piece)
        speaker = (speaker + int(random.integers(1, len(utterances)))) % len(utterances)
        before, piece = piece, next(material[speaker])
        if random.random() < 0.5:
            begin += round(random.uniform(*_PAUSE_SECONDS) * rate)
        else:
            # At most half of either turn, so that no speaker overlaps their own previous turn.
            longest = min(_LONGEST_OVERLAP_SECONDS * rate, len(before) / 2, len(piece) / 2)
            begin -= int(random.uniform(0, longest))
    return _stored(mixture, voices)


def _turns(
    random: np.random.Generator, utterances: Sequence[np.ndarray], rate: int, level_db: float
) -> Iterator[np.ndarray]:
    """Yields pieces of the utterances endlessly, at the given level, float32 `[sample]`."""
    shortest = round(_TURN_SECONDS[0] * rate)
    for number in itertools.cycle(random.permutation(len(utterances))):
        samples = utterances[number].astype(np.float32) / schema.FULL_SCALE
        samples *= np.float32(10 ** ((level_db - features.active_level_db(samples)) / 20))
        while len(samples):
            length = round(random.uniform(*_TURN_SECONDS) * rate)
            # The remainder would be too short for a turn.
            if len(samples) - length < shortest:
                length = len(samples)
            yield samples[:length]
            samples = samples[length:]


def _faded(piece: np.ndarray, count: int) -> np.ndarray:
    """Fades a piece in and out, float32 `[sample]`."""
    count = min(count, len(piece) // 2)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / max(count, 1))).astype(np.float32)
    faded = piece.copy()
    faded[:count] *= ramp
    faded[len(faded) - count :] *= ramp[::-1]
    return faded


def _stored(like: Mixture, voices: np.ndarray, noise: np.ndarray | None = None) -> Mixture:
    """Returns a mixture as a dataset would store it: attenuated if too loud, then rounded.

    Args:
        like: supplies the name, the speakers and the rate.
        voices: float32 `[source, sample]`.
        noise: float32 `[sample]`.
    """
    parts: list[Any] = [*voices, *([] if noise is None else [noise])]
    # Each part on its own as well: all are stored as 16 bits.
    peak = max(float(np.abs(part).max(initial=0.0)) for part in [sum(parts), *parts])
    gain = schema.FULL_SCALE * min(1.0, plan.MAX_PEAK / max(peak, 1e-9))
    made = dataclasses.replace(
        like,
        sources=np.round(voices * gain).astype(np.int16),
        noise=None if noise is None else np.round(noise * gain).astype(np.int16),
    )
    # Rounded to 16 bits, like stored ones.
    stored = features.log_magnitude(features.stft(made.waveform)).astype(np.float16)
    return dataclasses.replace(made, log_magnitude=stored.astype(np.float32))
