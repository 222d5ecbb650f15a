"""Speech synthesis with eSpeak NG, through `ctypes`.

The library is under GPL-3.0 and not a dependency of this package. It comes with the wheel
`espeakng-loader` (the extra `demo`) or the system (`libespeak-ng1` in Debian). Its interface is in
`speak_lib.h`, the voice format in `docs/voices.md` of https://github.com/espeak-ng/espeak-ng.
"""

import ctypes
import ctypes.util
import functools
import os
import pathlib
import tempfile
from types import TracebackType

import numpy as np

from pipeline import errors

_SYNCHRONOUS_OUTPUT = 2
_DO_NOT_EXIT = 0x8000
_UTF8 = 1
_POSITION_IN_CHARACTERS = 1
_PARAMETERS = {"rate": 1, "volume": 2}

_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class EspeakError(errors.UserError):
    """ESpeak NG is not installed, or does not work."""


class Synthesizer:
    """A fresh copy of the library with custom voices; a context manager.

    The library keeps state that no call resets: what it said before changes what it says next. Some
    of its noise comes from C's `rand`. Each `Synthesizer` therefore loads the library anew (`close`
    unloads it) and seeds `rand`, so the same calls in the same order give the same samples. A
    process can have only one at a time.

    Example:
        >>> with Synthesizer({"tall": "pitch 90 120"}, seed=1) as synthesizer:
        ...     samples = synthesizer.say("Rice is often served in round bowls.", "en-us+tall")

    Attributes:
        rate: sample rate of what `say` returns, in Hz.
        version: version of eSpeak NG.
    """

    _open = False

    def __init__(self, voices: dict[str, str], seed: int):
        """Loads the library.

        Args:
            voices: lines of a voice file for each voice name (one word); `say` accepts the names as
                variants of any accent, for example `en-us+name`.
            seed: for C's random numbers.

        Raises:
            EspeakError: the library or its data is not installed.
            RuntimeError: another one is open in this process.
        """
        if Synthesizer._open:
            raise RuntimeError("eSpeak NG keeps global state: close the other Synthesizer first")
        library_path, data_path = _find()
        self._folder = tempfile.TemporaryDirectory(prefix="voices-")
        _make_data(pathlib.Path(data_path), pathlib.Path(self._folder.name), voices)
        self._library: ctypes.CDLL | None = ctypes.CDLL(library_path)
        Synthesizer._open = True
        self._blocks: list[np.ndarray] = []
        # The library does not keep the callback alive, so an attribute does.
        self._callback = _CALLBACK(self._receive)
        self.rate = _initialize(self._library, self._folder.name)
        if self.rate <= 0:
            self.close()
            raise EspeakError(f"eSpeak NG finds no usable data in {data_path}")
        self._library.espeak_SetSynthCallback(self._callback)
        self.version = _version(self._library)
        ctypes.CDLL(None).srand(ctypes.c_uint(seed))

    def say(self, text: str, voice: str, rate: int = 175, volume: int = 100) -> np.ndarray:
        """Speaks a sentence.

        Args:
            text: a sentence.
            voice: accent and variant, such as `en-us+f2`.
            rate: speaking rate in words per minute, 80 to 450.
            volume: 0 to 200; 100 is the library's default, at which some voices are overdriven.

        Returns:
            int16 `[sample]` at `rate` of the synthesizer, with a pause after the sentence.

        Raises:
            EspeakError: there is no such accent, or nothing was spoken.
        """
        library = self._library
        if library is None:
            raise RuntimeError("the Synthesizer is closed")
        if library.espeak_SetVoiceByName(voice.encode()):
            raise EspeakError(f"eSpeak NG has no voice {voice!r}")
        for name, value in {"rate": rate, "volume": volume}.items():
            library.espeak_SetParameter(_PARAMETERS[name], int(value), 0)
        self._blocks.clear()
        data = text.encode("utf-8")
        status = library.espeak_Synth(
            data, ctypes.c_size_t(len(data) + 1), 0, _POSITION_IN_CHARACTERS, 0, _UTF8, None, None
        )
        library.espeak_Synchronize()
        if status or not self._blocks:
            raise EspeakError(f"eSpeak NG said nothing for {text!r} (status {status})")
        return np.concatenate(self._blocks)

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: int) -> int:
        del events
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def close(self) -> None:
        """Unloads the library and removes the temporary voices; may be called twice."""
        if self._library is not None:
            self._library.espeak_Terminate()
            _unload(self._library)
            self._library = None
            Synthesizer._open = False
        self._folder.cleanup()

    def __enter__(self) -> "Synthesizer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@functools.cache
def version() -> str:
    """Returns the version of the installed eSpeak NG.

    Raises:
        EspeakError: it is not installed.
    """
    with Synthesizer({}, seed=0) as synthesizer:
        return synthesizer.version


@functools.cache
def _find() -> tuple[str, str]:
    """Returns the paths of the library and of its data folder."""
    try:
        import espeakng_loader

        return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    except (ImportError, OSError, RuntimeError):
        pass  # No wheel here, or one without a library for this machine: the system may have it.
    name = ctypes.util.find_library("espeak-ng")
    if name is None:
        raise EspeakError(
            "the voices are eSpeak NG's, which is not installed: "
            "pip install 'voices-apart[demo]' (or apt-get install libespeak-ng1)"
        )
    library = ctypes.CDLL(name)
    if _initialize(library, None) <= 0:
        raise EspeakError(f"{name} does not find its data: install espeak-ng-data")
    path = ctypes.c_char_p()
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_Info(ctypes.byref(path))
    data_path = os.fsdecode(path.value or b"")
    library.espeak_Terminate()
    _unload(library)
    return name, data_path


def _initialize(library: ctypes.CDLL, folder: str | None) -> int:
    path = None if folder is None else os.fsencode(folder)
    return library.espeak_Initialize(_SYNCHRONOUS_OUTPUT, 0, path, _DO_NOT_EXIT)


def _version(library: ctypes.CDLL) -> str:
    library.espeak_Info.restype = ctypes.c_char_p
    return (library.espeak_Info(None) or b"").decode("ascii", "replace").split("  ")[0]


def _unload(library: ctypes.CDLL) -> None:
    ctypes.CDLL(None).dlclose(ctypes.c_void_p(library._handle))


def _make_data(source: pathlib.Path, folder: pathlib.Path, voices: dict[str, str]) -> None:
    """Fills `folder` with links to the data that English needs, and with the custom voices."""
    for path in source.iterdir():
        if path.name != "voices" and (path.name == "en_dict" or not path.name.endswith("_dict")):
            (folder / path.name).symlink_to(path)
    variants = folder / "voices" / "!v"
    variants.mkdir(parents=True)
    for name, lines in voices.items():
        (variants / name).write_text(f"language variant\nname {name}\n{lines}\n", encoding="ascii")
