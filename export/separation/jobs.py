"""Which recordings are separated, and what their outputs are called."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from pipeline import errors
from pipeline.corpora import corpus
from pipeline.io import storage

# Stands for a recording on standard input.
STDIN = "-"


@dataclasses.dataclass(frozen=True)
class Job:
    """A recording and the name, without an ending, that its outputs begin with.

    Attributes:
        source: the file.
        stem: of the outputs.
        title: what people are told it is, where that is not the file.
    """

    source: pathlib.Path
    stem: pathlib.Path
    title: str = ""

    @property
    def name(self) -> str:
        """What the recording is called."""
        return self.title or str(self.source)

    def voice(self, index: int) -> pathlib.Path:
        """Where the voice goes that is counted from 0: `mixture_voice1.wav` for the first."""
        return self.stem.with_name(f"{self.stem.name}_voice{index + 1}.wav")

    @property
    def picture(self) -> pathlib.Path:
        """Where the picture goes."""
        return self.stem.with_name(f"{self.stem.name}_voices.png")

    @property
    def rttm(self) -> pathlib.Path:
        """Where the turns go."""
        return self.stem.with_name(f"{self.stem.name}_voices.rttm")

    @property
    def summary(self) -> pathlib.Path:
        """Where the turns go with all else that is known of the recording."""
        return self.stem.with_name(f"{self.stem.name}_voices.json")


def plan(
    inputs: Sequence[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    num_sources: int,
    stdin: pathlib.Path | None = None,
) -> tuple[list[Job], list[errors.UserError]]:
    """What to separate, and under which names.

    Args:
        inputs: files, and folders whose audio files are taken, with those of folders below them.
        output_dir: where outputs go; what lies below it is never taken from a folder.
        num_sources: voices of the model.
        stdin: holds what came on standard input, which the input `-` then is.

    Returns:
        The jobs, and what among the inputs cannot be read.

    Raises:
        UserError: two outputs would have one name, or an output that of a recording.
    """
    target = pathlib.Path(output_dir)
    jobs: dict[pathlib.Path, Job] = {}
    problems: list[errors.UserError] = []
    for given in inputs:
        name = pathlib.Path(given)
        if given == STDIN and stdin is not None:
            jobs.setdefault(stdin.resolve(), Job(stdin, target / "stdin", "standard input"))
            continue
        try:
            if not name.is_dir():
                name.stat()
                # The stem of "..wav" would be the folder itself.
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
        audible = [path for path in listing.files if _sounds(path)]
        if target.resolve() != name.resolve():
            audible = [p for p in audible if target.resolve() not in (name / p).resolve().parents]
        for path in audible:
            source = name / path
            jobs.setdefault(source.resolve(), Job(source, (target / path).with_suffix("")))
        unreadable = [
            (path, why) for path, why in listing.problems if _sounds(path) or path in listing.closed
        ]
        problems += [errors.UserError(f"{name / path}: {why}") for path, why in unreadable]
        if not audible and not unreadable:
            problems.append(
                errors.UserError(
                    f"{name}: no audio in this folder (*{', *'.join(corpus.EXTENSIONS[:3])}, …)"
                )
            )
    _check_names(jobs, num_sources)
    return list(jobs.values()), problems


def _sounds(path: str) -> bool:
    return path.lower().endswith(corpus.EXTENSIONS)


def _check_names(jobs: dict[pathlib.Path, Job], num_sources: int) -> None:
    makers: dict[pathlib.Path, Job] = {}
    for job in jobs.values():
        voices = (job.voice(i) for i in range(num_sources))
        for output in (*voices, job.picture, job.rttm, job.summary):
            other = makers.setdefault(output.resolve(), job)
            if other is not job:
                raise errors.UserError(
                    f"{other.name} and {job.name} would both become {output}; separate them "
                    "into different folders"
                )
            if output.resolve() in jobs:
                raise errors.UserError(
                    f"{output}, a voice of {job.name}, would overwrite one of the recordings; "
                    "choose another --output_dir"
                )
