"""The models shipped with the package.

Each folder here holds a SavedModel, the same model as a LiteRT file, its card and its training log.

Imports `pipeline` and `export.outlets`.
"""

import pathlib

from pipeline import errors

DEFAULT = "two-voices-8khz"
CARD_FILE = "README.md"
_HERE = pathlib.Path(__file__).resolve().parent


def names() -> tuple[str, ...]:
    """Returns the names of the shipped models, sorted."""
    return tuple(sorted(card.parent.name for card in _HERE.glob(f"*/{CARD_FILE}")))


def path(name: str = DEFAULT) -> pathlib.Path:
    """Returns the folder of a shipped model.

    Raises:
        UserError: there is none with that name.
    """
    if name not in names():
        known = ", ".join(names()) or "none"
        raise errors.UserError(
            f"no model {name!r} comes with this package (there is {known}); name a folder of "
            "export.saved_model or of trainer.task with --model"
        )
    return _HERE / name


def resolve(model: str) -> str:
    """Returns a model's path: `model` itself, or the path of the shipped model with this name.

    Args:
        model: a path, a shipped model's name, or an empty string for `DEFAULT`.

    Raises:
        UserError: no model is given, and none is shipped.
    """
    if not model:
        return str(path())
    return str(path(model)) if model in names() and not pathlib.Path(model).exists() else model


def quickest(model: str) -> str:
    """Like `resolve`, but returns the format that starts fastest (`formats.quickest`).

    Args:
        model: as for `resolve`.

    Raises:
        UserError: as for `resolve`.
    """
    from export.outlets import formats

    return str(formats.quickest(resolve(model)))
