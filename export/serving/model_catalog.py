"""The models offered on the page, loaded on first use."""

import pathlib
import threading
from collections.abc import Mapping, Sequence

from export import pretrained
from export.outlets import formats, keras_model
from export.separation import loading
from pipeline import errors

Source = loading.LoadedModel | str


class Models:
    """Models by name; the first one is the default."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        """Checks what can be checked without loading.

        Args:
            sources: each model's path, or the model itself, by name.

        Raises:
            UserError: there is no model at a path.
        """
        self._sources = dict(sources)
        self._loaded = {n: m for n, m in sources.items() if isinstance(m, loading.LoadedModel)}
        self._titles = {name: _title(name, source) for name, source in self._sources.items()}
        self._lock = threading.Lock()

    @property
    def titles(self) -> dict[str, str]:
        """Each model's title on the page, by name, in order."""
        return dict(self._titles)

    @property
    def default(self) -> str:
        """The name of the first model."""
        return next(iter(self._sources))

    @property
    def need_keras(self) -> bool:
        """Whether Keras is needed to load one of them."""
        paths = [source for source in self._sources.values() if isinstance(source, str)]
        return any(formats.of(path) is None for path in paths)

    def load(self, name: str) -> loading.LoadedModel:
        """Returns the model of that name, loading it if needed; one thread loads at a time.

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
    """Returns the requested models, followed by those shipped with the package.

    Args:
        asked_for: paths or names, as for `export.separate --model`.

    Raises:
        UserError: no model is requested, and none is shipped.
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
    """Formats name, network, rate and voices, as far as known before loading."""
    if isinstance(source, loading.LoadedModel):
        info = source.info
    else:
        row = formats.of(source)
        if row is None:
            keras_model.find(source)
            return name
        info = row.read_info(pathlib.Path(source))
    return f"{name} · {info.name}, {info.num_sources} voices, {info.sample_rate / 1000:g} kHz"
