"""Makes a dataset of mixtures from recordings: sharded TFRecords, by an Apache Beam job.

  python -m pipeline.preprocess --input_dir=/data/TIMIT --output_dir=/data/timit-2mix
  python -m pipeline.preprocess --manifest=/data/mine/manifest.csv --output_dir=/data/mine-2mix

A folder is TIMIT's, or has speakers' folders (SPEAKER/**/*.wav). A manifest is a CSV with the
columns path and speaker, and optionally sex and split. To continue an interrupted job, run the same
command again.

Flags that are not listed are passed to Beam, such as --runner, --direct_num_workers, --flink_master
or --s3_endpoint_url. The flags of each runner are in its documentation, linked from
https://beam.apache.org/documentation/runners/capability-matrix/. Without --runner, the job uses
all cores of this machine and looks for nothing on the network.
"""

import logging as stdlib_logging

from absl import flags, logging

from pipeline import cli, schema

_INPUT_DIR = flags.DEFINE_multi_string("input_dir", [], "Folder of recordings; may be repeated.")
_MANIFEST = flags.DEFINE_multi_string("manifest", [], "CSV of recordings; may be repeated.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder of the dataset; it is created.")
_SAMPLE_RATE = flags.DEFINE_integer(
    "sample_rate", schema.DEFAULT_SAMPLE_RATE, "Sample rate of the dataset, Hz.",
    lower_bound=1000, upper_bound=192000,
)  # fmt: skip
_NUM_SOURCES = flags.DEFINE_integer(
    "num_sources", 2, "Voices in each mixture.", lower_bound=2, upper_bound=8
)
_MASKS = flags.DEFINE_list(
    "masks", list(schema.MASKS), f"Masks to store, of {', '.join(schema.MASKS)}."
)
_MIXTURES_PER_UTTERANCE = flags.DEFINE_integer(
    "mixtures_per_utterance", 1, "How often each utterance is the first voice.",
    lower_bound=1, upper_bound=1000,
)  # fmt: skip
_LENGTH = flags.DEFINE_enum(
    "length", "min", ["min", "max"],
    "min cuts to the shortest voice, max pads with silence to the longest.",
)  # fmt: skip
_LEVEL = flags.DEFINE_enum(
    "level", "active", ["active", "raw"],
    "active sets the voices to the same level, then apart by up to --max_snr_db; raw leaves them "
    "as recorded.",
)  # fmt: skip
_MAX_SNR_DB = flags.DEFINE_float(
    "max_snr_db", 5.0, "Largest level difference between two voices, dB.",
    lower_bound=0.0, upper_bound=60.0,
)  # fmt: skip
_MIN_SECONDS = flags.DEFINE_float(
    "min_seconds", 1.0, "Shorter utterances are left out.", lower_bound=0.0, upper_bound=3600.0
)
_MAX_SECONDS = flags.DEFINE_float(
    "max_seconds", 600.0,
    "Longer recordings are cut to this, for mixtures and as clean utterances; a worker takes about "
    "1 MB of memory for each second at 8 kHz.",
    lower_bound=1.0, upper_bound=86400.0,
)  # fmt: skip
_NUM_SHARDS = flags.DEFINE_integer(
    "num_shards", 8, "Files of each split.", lower_bound=1, upper_bound=99999
)
_VALID_FRACTION = flags.DEFINE_float(
    "valid_fraction", 0.1, "Fraction of train speakers that become valid if none is declared so.",
    lower_bound=0.0, upper_bound=0.9,
)  # fmt: skip
_SEED = flags.DEFINE_integer("seed", 0, "Different seeds give different mixtures.", lower_bound=0)
_MAX_BAD_FRACTION = flags.DEFINE_float(
    "max_bad_fraction", 0.01, "The job fails if more recordings, and more than ten, are unusable.",
    lower_bound=0.0, upper_bound=1.0,
)  # fmt: skip
_MIXTURE_LIST = flags.DEFINE_string(
    "mixture_list", None,
    "A mixtures.csv of another dataset: the same mixtures are made, with the same gains, and "
    "nothing is drawn.",
)  # fmt: skip
_INCLUDE_SA = flags.DEFINE_bool(
    "include_sa", False, "Keep TIMIT's SA1 and SA2, which every speaker reads."
)
_UTTERANCES = flags.DEFINE_bool(
    "utterances", True,
    "Also store the clean utterances of train (58 MB an hour at 8 kHz), for mixing anew at every "
    "step.",
)  # fmt: skip
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Stop after the plan and print counts, hours and bytes."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a finished dataset.")

# Settings that --mixture_list already determines.
_DRAWING = (
    _NUM_SOURCES, _MIXTURES_PER_UTTERANCE, _LENGTH, _LEVEL, _MAX_SNR_DB, _MIN_SECONDS,
    _VALID_FRACTION,
)  # fmt: skip


def main(beam_flags: list[str]) -> None:
    """Runs the command; `beam_flags` are the flags that it does not know."""
    _check_flags()
    # Beam is imported only after --help and wrong flags have been handled. On import, it warns
    # about optional packages that are not installed.
    stdlib_logging.disable(stdlib_logging.WARNING)
    from pipeline import job, plan
    from pipeline.beam import runners

    stdlib_logging.disable(stdlib_logging.NOTSET)
    runners.parse(beam_flags)
    settings = job.Settings(
        input_dir=tuple(_INPUT_DIR.value),
        manifest=tuple(_MANIFEST.value),
        output_dir=_OUTPUT_DIR.value or "",
        include_sa=_INCLUDE_SA.value,
        sample_rate=_SAMPLE_RATE.value,
        masks=tuple(mask for mask in schema.MASKS if mask in _MASKS.value),
        num_shards=_NUM_SHARDS.value,
        valid_fraction=_VALID_FRACTION.value,
        min_seconds=_MIN_SECONDS.value,
        max_seconds=_MAX_SECONDS.value,
        mixing=plan.Settings(
            num_sources=_NUM_SOURCES.value,
            mixtures_per_utterance=_MIXTURES_PER_UTTERANCE.value,
            level=_LEVEL.value,
            length=_LENGTH.value,
            max_snr_db=_MAX_SNR_DB.value,
            seed=_SEED.value,
        ),
        mixture_list=_MIXTURE_LIST.value,
        utterances=_UTTERANCES.value,
        max_bad_fraction=_MAX_BAD_FRACTION.value,
        dry_run=_DRY_RUN.value,
        overwrite=_OVERWRITE.value,
    )
    job.run(settings, beam_flags, verbose=logging.get_verbosity() >= logging.DEBUG)


def _check_flags() -> None:
    if not _INPUT_DIR.value and not _MANIFEST.value:
        raise flags.Error("--input_dir or --manifest is needed")
    for holder in (_INPUT_DIR, _MANIFEST):
        if "" in holder.value:
            raise flags.Error(f"--{holder.name} is empty; name a folder or file")
    if not _OUTPUT_DIR.value and not _DRY_RUN.value:
        raise flags.Error("--output_dir is needed")
    unknown = [mask for mask in _MASKS.value if mask not in schema.MASKS]
    if unknown:
        raise flags.Error(f"--masks: {unknown[0]!r} is not one of {', '.join(schema.MASKS)}")
    if _MIN_SECONDS.value > _MAX_SECONDS.value:
        raise flags.Error("--min_seconds is more than --max_seconds")
    if _LEVEL.value == "raw" and _MAX_SNR_DB.present:
        raise flags.Error("--max_snr_db has no effect with --level=raw; leave one out")
    if _MIXTURE_LIST.value is not None:
        given = [holder.name for holder in _DRAWING if holder.present]
        if given:
            raise flags.Error(f"--{given[0]} has no effect beside --mixture_list; leave one out")


if __name__ == "__main__":
    cli.run(main, __doc__, pass_unknown=True, remote=("output_dir",))
