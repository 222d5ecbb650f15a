"""Facts of recordings that do not exist, for benchmarks of the launching process."""

from typing import Any

import numpy as np

from pipeline import columns, fact_table, schema
from pipeline.corpora import utterance_table

_RATE = schema.DEFAULT_SAMPLE_RATE
_OF_A_SPEAKER = 100


def facts(count: int) -> fact_table.FactTable:
    """Returns facts of `count` recordings, a hundred of each speaker."""
    import pyarrow as pa
    import pyarrow.compute as pc

    random = np.random.default_rng(0)

    def text(numbers: Any, digits: int) -> Any:
        return pc.utf8_lpad(numbers.cast(pa.large_string()), digits, "0")

    def join(*parts: Any) -> Any:
        texts = [pa.scalar(p, pa.large_string()) if isinstance(p, str) else p for p in parts]
        return pc.binary_join_element_wise(*texts, pa.scalar("", pa.large_string()))

    rows = np.arange(count, dtype=np.int32)
    speakers = rows // _OF_A_SPEAKER
    names = text(pa.array(rows), 8)
    of_speakers = join("speaker", text(pa.array(np.arange(-(-count // _OF_A_SPEAKER))), 6))
    nothing = np.zeros(count, np.int8)
    folders = join("/data/corpus/", of_speakers, "/")
    utterances = utterance_table.UtteranceTable(
        ids=columns.Texts(join(of_speakers.take(pa.array(speakers)), "/", names)),
        folders=columns.Codes(speakers, folders.to_pylist()),
        files=columns.Texts(join(names, ".flac")),
        speakers=columns.Codes(speakers, of_speakers.to_pylist()),
        sexes=columns.Codes(nothing, ["f"]),
        splits=columns.Codes(nothing, [""]),
    )
    return fact_table.FactTable(
        utterances,
        rows,
        {
            "num_samples": random.integers(2 * _RATE, 20 * _RATE, count),
            "peak": random.uniform(0.1, 1, count),
            "level": random.uniform(-40, -20, count),
            "sha256": random.integers(0, 256, (count, 32), np.uint8),
            "file_bytes": np.full(count, 200_000, np.uint32),
            "file_rate": np.full(count, 16_000, np.uint32),
        },
    )
