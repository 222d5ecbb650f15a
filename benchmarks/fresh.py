"""Exports networks with random weights, since speed does not depend on their values."""

import concurrent.futures
import multiprocessing
import pathlib
from collections.abc import Mapping
from typing import Any


def export(
    name: str, folder: str, settings: Mapping[str, Any] | None = None, lite: bool = False
) -> dict[str, Any]:
    """Writes the SavedModel of a network with random weights; returns an empty dict.

    Args:
        name: the network's name.
        folder: the folder to create.
        settings: the network's settings.
        lite: also write the LiteRT file.
    """
    from export import saved_model
    from export.outlets import keras_model

    keras_model.import_keras()
    from models import registry, separator

    whole = separator.wrap(
        registry.create(name, **(settings or {})), mean=-3.7, deviation=0.8, active_level_db=-23.0,
        sample_rate=8000, num_sources=2,
    )  # fmt: skip
    whole.build(None)
    saved_model.write(whole, pathlib.Path(folder), lite=lite)
    return {}


def in_a_process(function: Any, *arguments: Any) -> dict[str, Any]:
    """Runs a function in a process of its own and returns its result."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return dict(pool.submit(function, *arguments).result())
