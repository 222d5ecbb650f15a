"""Facts of recordings that do not exist, for benchmarks of the launching process."""

from typing import Any

import numpy as np

from pipeline import fact_table, schema

_RATE = schema.DEFAULT_SAMPLE_RATE
_OF_A_SPEAKER = 100


def facts(count: int) -> fact_table.FactTable:
    """Returns facts of `count` recordings, a hundred of each speaker."""
    import pyarrow as pa
    import pyarrow.compute as pc

    random = np.random.default_rng(0)
    rows = pa.array(np.arange(count, dtype=np.int32))
    speakers = pa.array(np.arange(count, dtype=np.int32) // _OF_A_SPEAKER)

    def text(numbers: Any, digits: int) -> Any:
        return pc.utf8_lpad(numbers.cast(pa.large_string()), digits, "0")

    def join(*parts: Any) -> Any:
        texts = [pa.scalar(p, pa.large_string()) if isinstance(p, str) else p for p in parts]
        return pc.binary_join_element_wise(*texts, pa.scalar("", pa.large_string()))

    def repeated(numbers: Any, texts: Any) -> Any:
        return pa.DictionaryArray.from_arrays(numbers, texts)

    of_speakers = join("speaker", text(pa.array(np.arange(-(-count // _OF_A_SPEAKER))), 6))
    speaker = repeated(speakers, of_speakers)
    name = text(rows, 8)
    nothing = pa.array(np.zeros(count, np.int32))
    return fact_table.FactTable(
        {
            "id": join(speaker.cast(pa.large_string()), "/", name),
            "folder": repeated(speakers, join("/data/corpus/", of_speakers, "/")),
            "file": join(name, ".flac"),
            "speaker": speaker,
            "sex": repeated(nothing, pa.array(["f"], pa.large_string())),
            "split": repeated(nothing, pa.array([""], pa.large_string())),
            "num_samples": random.integers(2 * _RATE, 20 * _RATE, count),
            "peak": random.uniform(0.1, 1, count),
            "level": random.uniform(-40, -20, count),
            "sha256": random.integers(0, 256, (count, 32), np.uint8),
            "file_bytes": np.full(count, 200_000, np.uint32),
            "file_rate": np.full(count, 16_000, np.uint32),
        }
    )
