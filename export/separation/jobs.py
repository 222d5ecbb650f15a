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
) -> tuple[list[Job], list[errors.UserError], list[str]]:
    """Plans what to separate and how to name the outputs.

    If recordings would have outputs of the same name (`a.mp3` and `a.opus`), their suffixes are
    kept in the names.

    Args:
        inputs: files and folders; folders are searched recursively.
        output_dir: folder for the outputs; files in it are never taken as inputs from a folder.
        num_sources: number of voices of the model.
        stdin: file with the content of standard input, used for the input `-`.

    Returns:
        The jobs; an error for each input that cannot be separated; and a line for each folder that
        contains files that are not audio.
    """
    target = pathlib.Path(output_dir)
    jobs: dict[pathlib.Path, Job] = {}
    problems: list[errors.UserError] = []
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
            problems.append(errors.UserError(f"no such file or folder: {name}"))
            continue
        except OSError as error:
            problems.append(errors.UserError(errors.explain_os_error(error)))
            continue
        except errors.UserError as error:
            problems.append(error)
            continue
        files: Sequence[str] = listing.files
        if target.resolve() != name.resolve():
            files = [p for p in files if target.resolve() not in (name / p).resolve().parents]
        audible, others = folders.sort(str(name), files)
        for path in audible:
            source = name / path
            jobs.setdefault(source.resolve(), Job(source, (target / path).with_suffix("")))
        unreadable = [
            (path, why) for path, why in listing.problems if _sounds(path) or path in listing.closed
        ]
        problems += [errors.UserError(f"{name / path}: {why}") for path, why in unreadable]
        if others:
            endings = collections.Counter(map(folders.ending, others))
            notes.append(folders.left_out(str(name), endings))
        if not audible and not unreadable:
            problems.append(errors.UserError(f"{name}: no audio in this folder"))
    named, in_the_way = _with_names(jobs, num_sources)
    return named, problems + in_the_way, notes


def _sounds(path: str) -> bool:
    return path.lower().endswith(folders.ENDINGS)


def _with_names(
    jobs: dict[pathlib.Path, Job], num_sources: int
) -> tuple[list[Job], list[errors.UserError]]:
    """Returns the jobs whose outputs have unique names, and an error for each of the others."""
    count = collections.Counter(job.stem for job in jobs.values())
    makers: dict[pathlib.Path, Job] = {}
    named: list[Job] = []
    problems: list[errors.UserError] = []
    for job in jobs.values():
        if count[job.stem] > 1 and not job.title:
            job = dataclasses.replace(job, stem=job.stem.with_name(job.source.name))
        outputs = [output.resolve() for output in _outputs(job, num_sources)]
        taken = next((output for output in outputs if output in makers), None)
        lost = next((output for output in outputs if output in jobs), None)
        if taken is not None:
            problems.append(
                errors.UserError(
                    f"{makers[taken].name} and {job.name} would both become {taken}; separate "
                    f"{job.name} into another folder"
                )
            )
        elif lost is not None:
            problems.append(
                errors.UserError(
                    f"{lost}, a voice of {job.name}, would overwrite one of the recordings; "
                    "choose another --output_dir"
                )
            )
        else:
            makers.update(dict.fromkeys(outputs, job))
            named.append(job)
    return named, problems


def _outputs(job: Job, num_sources: int) -> Iterable[pathlib.Path]:
    yield from (job.voice(index) for index in range(num_sources))
    yield from (job.picture, job.rttm, job.summary)
