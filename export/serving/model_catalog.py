"""The models that a person can choose from, loaded when they are first used."""

import pathlib
import threading
from collections.abc import Mapping, Sequence

from export import pretrained
from export.outlets import formats, keras_model
from export.separation import loading
from pipeline import errors

Source = loading.LoadedModel | str


class Models:
    """Models by name, the first of which is taken unless another is chosen."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        """Checks what can be checked without loading.

        Args:
            sources: of each model by name: its path, or the model itself.

        Raises:
            UserError: a path that leads to no model.
        """
        self._sources = dict(sources)
        self._loaded = {n: m for n, m in sources.items() if isinstance(m, loading.LoadedModel)}
        self._titles = {name: _title(name, source) for name, source in self._sources.items()}
        self._lock = threading.Lock()

    @property
    def titles(self) -> dict[str, str]:
        """What each model is called on the page, by name, in order."""
        return dict(self._titles)

    @property
    def default(self) -> str:
        """The name of the first."""
        return next(iter(self._sources))

    @property
    def need_keras(self) -> bool:
        """Whether one of them is what Keras has to load."""
        paths = [source for source in self._sources.values() if isinstance(source, str)]
        return any(formats.of(path) is None for path in paths)

    def load(self, name: str) -> loading.LoadedModel:
        """The model of that name; waits for another thread that loads one.

        Raises:
            UserError: there is none, or it is damaged.
        """
        with self._lock:
            if name not in self._sources:
                raise errors.UserError(f"there is no model {name!r} here")
            if name not in self._loaded:
                self._loaded[name] = loading.load(str(self._sources[name]))
            return self._loaded[name]


def sources(asked_for: Sequence[str]) -> dict[str, Source]:
    """The models that come with the package and those asked for, which stand first.

    Args:
        asked_for: paths or names, as `export.separate --model` takes them.

    Raises:
        UserError: nothing is asked for, and nothing is shipped.
    """
    found: dict[str, str] = {}
    for given in asked_for:
        path = pretrained.resolve(given)
        if path in found.values():
            continue
        base = pathlib.Path(path).absolute().name
        name, number = base, 1
        while name in found:
            number += 1
            name = f"{base} ({number})"
        found[name] = path
    if not found:
        found[pretrained.DEFAULT] = pretrained.resolve("")
    for name in pretrained.names():
        path = pretrained.resolve(name)
        if path not in found.values():
            found[name] = path
    return {name: pretrained.quickest(path) for name, path in found.items()}


def _title(name: str, source: Source) -> str:
    """Name, network, rate and voices, as far as they are known before it is loaded."""
    if isinstance(source, loading.LoadedModel):
        info = source.info
    else:
        row = formats.of(source)
        if row is None:
            keras_model.find(source)
            return name
        info = row.read_info(pathlib.Path(source))
    return f"{name} · {info.name}, {info.num_sources} voices, {info.sample_rate / 1000:g} kHz"
