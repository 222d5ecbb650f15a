"""Determines which recordings are separated, and the names of their outputs."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence

from pipeline import errors
from pipeline.audio import folders
from pipeline.io import storage

# Denotes a recording on standard input.
STDIN = "-"


# The longest name of a file, in bytes, in the file systems of Linux and macOS.
_MAX_NAME_BYTES = 255


class RefusedError(errors.UserError):
    """An input that cannot be separated.

    Attributes:
        recording: the name of the recording or folder, as in `Job.name`.
    """

    def __init__(self, recording: str | os.PathLike[str], message: str) -> None:
        """Takes the input's name and the message for the user."""
        super().__init__(message)
        self.recording = os.fspath(recording)


@dataclasses.dataclass(frozen=True)
class Job:
    """A recording and the path stem of its outputs.

    Attributes:
        source: the file.
        stem: the outputs' path without suffix.
        title: the recording's name in messages, if it is not that of the file.
    """

    source: pathlib.Path
    stem: pathlib.Path
    title: str = ""

    @property
    def name(self) -> str:
        """The recording's name in messages."""
        return self.title or str(self.source)

    def voice(self, index: int) -> pathlib.Path:
        """Returns the path of a voice, counted from 0: `mixture_voice1.wav` for the first."""
        return self.stem.with_name(f"{self.stem.name}_voice{index + 1}.wav")

    @property
    def picture(self) -> pathlib.Path:
        """Path of the picture."""
        return self.stem.with_name(f"{self.stem.name}_voices.png")

    @property
    def rttm(self) -> pathlib.Path:
        """Path of the turns as RTTM."""
        return self.stem.with_name(f"{self.stem.name}_voices.rttm")

    @property
    def summary(self) -> pathlib.Path:
        """Path of the JSON summary with the turns."""
        return self.stem.with_name(f"{self.stem.name}_voices.json")


def plan(
    inputs: Sequence[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    num_sources: int,
    stdin: pathlib.Path | None = None,
    *,
    plot: bool = False,
    activity: bool = False,
) -> tuple[list[Job], list[RefusedError], list[str]]:
    """Plans what to separate and how to name the outputs.

    If recordings would have outputs of the same name (`a.mp3` and `a.opus`), their suffixes are
    kept in the names.

    Args:
        inputs: files and folders; folders are searched recursively.
        output_dir: folder for the outputs; files in it are not taken as inputs from a folder above
            it. If it is itself an input, only the voices of other recordings in it are left out.
        num_sources: number of voices of the model.
        stdin: file with the content of standard input, used for the input `-`.
        plot: a picture will be written.
        activity: RTTM and JSON will be written.

    Returns:
        The jobs; an error for each input that cannot be separated; and lines about the files of a
        folder that are left out.
    """
    target = pathlib.Path(output_dir)
    jobs: dict[pathlib.Path, Job] = {}
    problems: list[RefusedError] = []
    notes: list[str] = []
    for given in inputs:
        name = pathlib.Path(given)
        if given == STDIN and stdin is not None:
            jobs.setdefault(stdin.resolve(), Job(stdin, target / "stdin", "standard input"))
            continue
        try:
            if not name.is_dir():
                name.stat()
                # The stem of "..wav" would denote the folder itself.
                stem = name.stem if name.stem.strip(".") else "recording"
                jobs.setdefault(name.resolve(), Job(name, target / stem))
                continue
            listing = storage.list_files(str(name))
        except FileNotFoundError:
            problems.append(RefusedError(name, f"no such file or folder: {name}"))
            continue
        except OSError as error:
            problems.append(RefusedError(name, errors.explain_os_error(error)))
            continue
        except errors.UserError as error:
            problems.append(RefusedError(name, str(error)))
            continue
        files: Sequence[str] = listing.files
        mirrored = target.resolve() == name.resolve()
        if not mirrored:
            files = [p for p in files if target.resolve() not in (name / p).resolve().parents]
        audible, others = folders.sort(str(name), files)
        voices = _voices(audible, num_sources) if mirrored else set()
        if voices:
            audible = [path for path in audible if path not in voices]
            notes.append(
                f"{name}: {len(voices):,d} files are left out, as voices of other recordings in it"
            )
        for path in audible:
            source = name / path
            jobs.setdefault(source.resolve(), Job(source, (target / path).with_suffix("")))
        unreadable = [
            (path, why) for path, why in listing.problems if _sounds(path) or path in listing.closed
        ]
        problems += [RefusedError(name / path, f"{name / path}: {why}") for path, why in unreadable]
        if others:
            endings = collections.Counter(map(folders.ending, others))
            notes.append(folders.left_out(str(name), endings))
        if not audible and not unreadable:
            problems.append(RefusedError(name, f"{name}: no audio in this folder"))
    named, in_the_way = _with_names(jobs, num_sources, plot, activity)
    return named, problems + in_the_way, notes


def _voices(paths: Sequence[str], num_sources: int) -> set[str]:
    """Returns those of the paths that are voices of others, of which all voices are there."""
    there, found = set(paths), set[str]()
    for path in map(pathlib.Path, paths):
        for stem in (path.with_suffix(""), path):
            voices = {str(Job(path, stem).voice(index)) for index in range(num_sources)}
            if voices <= there:
                found |= voices
    return found


def _sounds(path: str) -> bool:
    return path.lower().endswith(folders.ENDINGS)


def _with_names(
    jobs: dict[pathlib.Path, Job], num_sources: int, plot: bool, activity: bool
) -> tuple[list[Job], list[RefusedError]]:
    """Returns the jobs whose outputs can get their names, and an error for each of the others."""
    count = collections.Counter(job.stem for job in jobs.values())
    makers: dict[pathlib.Path, Job] = {}
    named: list[Job] = []
    problems: list[RefusedError] = []
    for job in jobs.values():
        if count[job.stem] > 1 and not job.title:
            job = dataclasses.replace(job, stem=job.stem.with_name(job.source.name))
        outputs = list(_outputs(job, num_sources, plot, activity))
        resolved = [output.resolve() for output in outputs]
        taken = next((output for output in resolved if output in makers), None)
        lost = next((output for output in resolved if output in jobs), None)
        longest = max(len(os.fsencode(output.name)) for output in outputs)
        blocked = next((output for output in outputs if os.path.isdir(output)), None)
        if taken is not None:
            problem = (
                f"{makers[taken].name} and {job.name} would both become {taken}; separate "
                f"{job.name} into another folder"
            )
        elif lost is not None:
            problem = (
                f"{lost}, a voice of {job.name}, would overwrite one of the recordings; "
                "choose another --output_dir"
            )
        elif longest > _MAX_NAME_BYTES:
            problem = (
                f"{job.name}: the names of its outputs would have up to {longest} bytes, and only "
                f"{_MAX_NAME_BYTES} are possible; rename it"
            )
        elif blocked is not None:
            problem = (
                f"{blocked} is a folder, and in the way of an output of {job.name}; rename the "
                "folder, or choose another --output_dir"
            )
        else:
            makers.update(dict.fromkeys(resolved, job))
            named.append(job)
            continue
        problems.append(RefusedError(job.name, problem))
    return named, problems


def _outputs(job: Job, num_sources: int, plot: bool, activity: bool) -> Iterable[pathlib.Path]:
    yield from (job.voice(index) for index in range(num_sources))
    if plot:
        yield job.picture
    if activity:
        yield from (job.rttm, job.summary)
