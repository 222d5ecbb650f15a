"""The one place of the version, and the versions of all that decides a dataset's bytes.

`setup.py`, the dataset's info and the exported models read them.
"""

VERSION = "0.1.0"


def versions() -> dict[str, str]:
    """What decides bytes, beside the plan: this package, Python, and the libraries, by name."""
    # setup.py runs this file where none of them is there.
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
