"""The `voices-apart` program, which runs all commands.

    voices-apart separate call.m4a
    voices-apart COMMAND --help

Each command is a module and runs as with `python -m MODULE`: the same flags, output and exit codes.
Only the chosen command's module is imported.
"""

import argparse
import difflib
import importlib
import os
import pathlib
import runpy
import sys
from collections.abc import Sequence

from pipeline import version

NAME = "voices-apart"

# Each command's name, its module and its description.
COMMANDS = {
    "separate": ("export.separate", "the voices in recordings, one file each"),
    "serve": ("export.serve", "the same on a page in the browser"),
    "demo": ("export.demo", "a made conversation, separated: something to look at and listen to"),
    "voices": ("pipeline.voices", "a corpus of synthetic speakers"),
    "virtual": ("pipeline.virtual_speakers", "copies of speakers with other voices, to train with"),
    "preprocess": ("pipeline.preprocess", "recordings to a dataset of mixtures"),
    "train": ("trainer.task", "train a network on a dataset"),
    "export": ("export.saved_model", "a trained network to a SavedModel"),
    "lite": ("export.lite", "a model to a LiteRT file, for phones"),
    "onnx": ("export.onnx", "a model to an ONNX file"),
    "evaluate": ("export.evaluate", "how well models separate a dataset's mixtures"),
    "example": ("export.example", "one mixture of a dataset as WAV files"),
}
_HELP = ("help", "--help", "-help", "-h", "--helpfull", "--helpshort")


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs the command line.

    Args:
        argv: the arguments, by default the process's.

    Returns:
        The exit code, 2 if there is no such command; commands that run exit the process themselves.
    """
    arguments = list(sys.argv if argv is None else argv)[1:]
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    if not arguments:
        return _refuse(f"name a command: {', '.join(COMMANDS)}")
    command, *rest = arguments
    if command == "--version":
        print(version.VERSION)
        return 0
    if command in _HELP:
        if not rest:
            print(_help())
            return 0
        command, rest = rest[0], ["--help"]
    if command not in COMMANDS:
        return _refuse(_advice(command))
    from pipeline import cli

    cli.typed_as = f"{NAME} {command}"
    sys.argv[1:] = rest
    runpy.run_module(COMMANDS[command][0], run_name="__main__", alter_sys=True)
    return None


def _refuse(message: str) -> int:
    print(f"error: {message}; {NAME} --help lists what there is", file=sys.stderr)
    return 2


def _advice(command: str) -> str:
    """Formats the error for an unknown command, with a suggestion of what was meant."""
    if command.startswith("-"):
        return f"{command} stands before the command; flags come after it"
    if pathlib.Path(command).exists():
        return f"no command {command!r}; to separate it: {NAME} separate {command}"
    # Module names are recognised as well.
    meant = [s for s, (module, _) in COMMANDS.items() if command in (module, module.split(".")[1])]
    meant = meant or difflib.get_close_matches(command, COMMANDS, n=1, cutoff=0.6)
    return f"no command {command!r}" + (f"; did you mean {' or '.join(meant)}?" if meant else "")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {command:{width}}  {about}" for command, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            f"{NAME} {version.VERSION}: each voice of a conversation, given back alone.",
            "",
            f"  {NAME} separate call.m4a --output_dir=out",
            "",
            "Commands:",
            *lines,
            "",
            f"{NAME} COMMAND --help lists the command's flags; --version prints the version.",
            "Exit codes: 0 done; 1 an error, told in one line; 2 a wrong command or flag;",
            "130 interrupted; 143 terminated.",
        ]
    )


def _complete() -> None:
    """Provides shell completion through argcomplete, if it is installed.

    The flags offered are those defined by the module of the command being typed.
    """
    try:
        import argcomplete
    except ModuleNotFoundError:
        return
    typed = os.environ.get("COMP_LINE", "").split()
    parser = argparse.ArgumentParser(NAME, add_help=False)
    commands = parser.add_subparsers()
    for command, (module, about) in COMMANDS.items():
        own = commands.add_parser(command, help=about, add_help=False)
        if command in typed[1:2]:
            _add_flags(own, module)
    parser.add_argument("--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    argcomplete.autocomplete(parser)


def _add_flags(parser: argparse.ArgumentParser, module: str) -> None:
    from absl import flags

    before = set(flags.FLAGS)
    loaded = importlib.import_module(module)
    getattr(loaded, "_define_flags", lambda: None)()
    for name in sorted(set(flags.FLAGS) - before):
        flag = flags.FLAGS[name]
        choices = getattr(flag.parser, "enum_values", None)
        if flag.boolean:
            parser.add_argument(f"--{name}", action="store_true", help=flag.help)
        else:
            parser.add_argument(f"--{name}", choices=choices, help=flag.help)
    parser.add_argument("--help", action="store_true")
    parser.add_argument("recording", nargs="*")


if __name__ == "__main__":
    sys.exit(main())
