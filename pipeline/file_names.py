"""The names of files that more than one module reads or writes.

Those of the dataset are in `pipeline.schema`, beside a description of their content.
"""

# Marks an unfinished dataset or run: a lock, or in an object store the prefix of each job's lock.
LOCK = "_LOCK"

# Files in a run's folder, described in `trainer.run.run_folder`.
RUN_CONFIG = "config.json"
RUN_STATE = "state.json"
BEST_MODEL = "best.keras"
TRAINING_LOG = "log.csv"
CURVES = "curves.png"

# Files of an exported model: `export.saved_model` writes the folder, `export.outlets.model_info`
# the info.
MODEL_INFO = "voices_apart.json"
SAVED_MODEL = "saved_model.pb"
SAVED_VARIABLES = "variables"
LITE_MODEL = "model.tflite"
