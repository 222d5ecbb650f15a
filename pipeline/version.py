"""The version of this package, and the versions of everything that determines a dataset's bytes.

`setup.py`, the dataset's info and the exported models read them.
"""

import functools

VERSION = "0.2.0"


@functools.cache
def versions() -> dict[str, str]:
    """Returns the versions, by name, of what determines a dataset's bytes besides the plan."""
    # setup.py runs this file before the packages are installed.
    import importlib.metadata
    import platform

    import soundfile

    libraries = ("numpy", "scipy", "soundfile", "soxr")
    return {
        "voices-apart": VERSION,
        "python": platform.python_version(),
        "libsndfile": soundfile.__libsndfile_version__,
        **{name: importlib.metadata.version(name) for name in libraries},
    }
