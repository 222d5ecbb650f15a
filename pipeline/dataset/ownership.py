"""Checks that a job removes or replaces only files that it or an earlier job wrote.

File names are not sufficient: many programs call a shard `train-00005-of-00010.tfrecord`. A folder
is therefore recognised by its content: a work folder left by a job, the info of a dataset, or the
side-cars beside the shards.
"""

import re
from collections.abc import Iterator, Sequence

from pipeline import errors, schema
from pipeline.dataset import dataset, summary
from pipeline.io import atomic, storage, stored_json

# All files that a job writes to its work folder (`pipeline.beam.transforms`,
# `pipeline.dataset.inspection_cache`, `pipeline.beam.progress`), except temporary files, whose
# names begin with a dot.
_SHARD = r"[a-z]+-\d{5}-of-\d{5}\.tfrecord"
_OF_WORK = re.compile(
    r"utterances(-\d{5})?\.jsonl|facts-[0-9a-f]{32}\.jsonl|statistics\.json"
    rf"|(inspected|written)(/[0-9a-f]{{32}})?|(utterances/)?{_SHARD}\.plan"
)
_UTTERANCES = f"{schema.UTTERANCES_FOLDER}/"
_INDEX = _UTTERANCES + schema.UTTERANCES_INDEX_FILE


def refuse_others(folder: str) -> None:
    """Refuses a folder in which a job would remove or replace anything but a dataset.

    Every state that a killed or failed job leaves behind is accepted: as long as there is a shard
    without its side-car, there is a work folder, too.

    Args:
        folder: the dataset's folder; it need not exist.

    Raises:
        UserError: the message names the foreign file, and says what to do.
    """
    others = list(_others(folder))
    if others:
        more = f" (and {len(others) - 1:,d} more)" if others[1:] else ""
        raise errors.UserError(
            f"{folder}: {others[0]}{more} is not of a dataset that was made here, and would be "
            "removed or replaced; choose another --output_dir, or move it away"
        )


def is_of_work(name: str) -> bool:
    """Returns whether a job gives this name, relative to its work folder, to a file there."""
    return _OF_WORK.fullmatch(name) is not None


def _others(folder: str) -> Iterator[str]:
    in_work = _in_work(folder)
    strangers = [name for name in in_work if not is_of_work(name)]
    if strangers:
        yield from (f"{dataset.WORK_FOLDER}/{name}" for name in strangers)
        return
    if in_work or _has_info(folder):
        return
    names = set(atomic.names(folder))
    names |= {_UTTERANCES + name for name in atomic.names(storage.join(folder, _UTTERANCES))}
    shards = sorted(name for name in names if dataset.is_shard(name.removeprefix(_UTTERANCES)))
    own = {name for name in shards if _is_own_shard(folder, name, names)}
    yield from (name for name in shards if name not in own)
    if own:
        return
    written = (schema.INFO_FILE, schema.MARKER_FILE, schema.MIXTURES_FILE, _INDEX)
    yield from (name for name in written if name in names)
    # A job that fails because of too many bad recordings leaves only this file.
    if schema.REJECTED_FILE in names and not _text(folder, schema.REJECTED_FILE).startswith(
        summary.rejected_csv([])
    ):
        yield schema.REJECTED_FILE


def _in_work(folder: str) -> Sequence[str]:
    """Returns all files in the work folder except hidden ones; none if it does not exist."""
    try:
        return storage.list_files(storage.join(folder, dataset.WORK_FOLDER)).files
    except storage.ReadError:
        return ()


def _has_info(folder: str) -> bool:
    """Returns whether the info is that of a dataset of any version; other programs use its name."""
    fields = _json(folder, schema.INFO_FILE)
    return {"schema_version", "plan_digest", "splits"} <= fields.keys()


def _is_own_shard(folder: str, name: str, names: set[str]) -> bool:
    """Returns whether a file is a shard with a side-car of ours beside it, or such a side-car."""
    sidecar = name if name.endswith(".json") else f"{name}.json"
    if sidecar not in names:
        return False
    return {"schema_version", "plan_digest", "shard"} <= _json(folder, sidecar).keys()


def _json(folder: str, name: str) -> dict[str, object]:
    """Returns the object in a JSON file; empty if there is no such file, or no object in it."""
    try:
        return stored_json.loads(_text(folder, name), dict)
    except ValueError:
        return {}


def _text(folder: str, name: str) -> str:
    try:
        data = storage.read_bytes(storage.join(folder, name))
    except errors.UserError:
        return ""
    return data.decode("utf-8", "replace")
