"""The names of the files that more than one module reads or writes, each defined here alone.

The dataset's are in `pipeline.schema`, beside what they hold.
"""

# While a dataset or a run is being made: a lock, or in an object store how each job's begins.
LOCK = "_LOCK"

# A run's folder: `trainer.run.run_folder` says what each is.
RUN_CONFIG = "config.json"
RUN_STATE = "state.json"
BEST_MODEL = "best.keras"
TRAINING_LOG = "log.csv"
CURVES = "curves.png"

# An exported model: `export.saved_model` writes the folder, `export.outlets.model_info` the info.
MODEL_INFO = "voices_apart.json"
SAVED_MODEL = "saved_model.pb"
SAVED_VARIABLES = "variables"
LITE_MODEL = "model.tflite"
