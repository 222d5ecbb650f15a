"""The models that come with the package, each a folder here.

It holds the SavedModel, the same model as a LiteRT file, its card and its training log.

Imports `pipeline` and `export.outlets`.
"""

import pathlib

from pipeline import errors

DEFAULT = "two-voices-8khz"
CARD_FILE = "README.md"
_HERE = pathlib.Path(__file__).resolve().parent


def names() -> tuple[str, ...]:
    """Of the models that are here, sorted."""
    return tuple(sorted(card.parent.name for card in _HERE.glob(f"*/{CARD_FILE}")))


def path(name: str = DEFAULT) -> pathlib.Path:
    """The folder of a model that comes with the package.

    Raises:
        UserError: there is none of that name.
    """
    if name not in names():
        known = ", ".join(names()) or "none"
        raise errors.UserError(
            f"no model {name!r} comes with this package (there is {known}); name a folder of "
            "export.saved_model or of trainer.task with --model"
        )
    return _HERE / name


def resolve(model: str) -> str:
    """A model's path: `model` itself, or that of the shipped model which has this name.

    Args:
        model: a path, a shipped model's name, or nothing for `DEFAULT`.

    Raises:
        UserError: nothing is asked for, and nothing is shipped.
    """
    if not model:
        return str(path())
    return str(path(model)) if model in names() and not pathlib.Path(model).exists() else model


def quickest(model: str) -> str:
    """As `resolve`, but what separates soonest (`export.outlets.formats.quickest`).

    Args:
        model: as for `resolve`.

    Raises:
        UserError: likewise.
    """
    from export.outlets import formats

    return str(formats.quickest(resolve(model)))
