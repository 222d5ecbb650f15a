"""The one place of the version; `setup.py`, the dataset's info and the exported models read it."""

VERSION = "0.1.0"
