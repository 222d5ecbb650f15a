#!/bin/sh
# The experiment that failed, and the one that does not: both networks with both assignments, on the
# embedded corpus, evaluated side by side. Every step goes on where it was.
set -eu
BIN=${BIN:-.venv/bin}
OUT=${OUT:-experiments}
EPOCHS=${EPOCHS:-10}
SPEAKERS=${SPEAKERS:-400}

run() {
  echo
  echo "\$ python -m $*"
  "$BIN/python" -m "$@"
}

run pipeline.voices --output_dir="$OUT/corpus" --num_speakers="$SPEAKERS"
run pipeline.preprocess --input_dir="$OUT/corpus" --output_dir="$OUT/dataset"
set --
for model in ffn lstm; do
  # The original's: one mask, voice 1's, plain mean squared error against the binary mask.
  run trainer.task --data_dir="$OUT/dataset" --model="$model" --epochs="$EPOCHS" \
    --assignment=fixed --target=ibm --model_dir="$OUT/$model-fixed"
  run trainer.task --data_dir="$OUT/dataset" --model="$model" --epochs="$EPOCHS" \
    --assignment=pit --target=psm --model_dir="$OUT/$model-pit"
  set -- "$@" --model="$OUT/$model-fixed" --model="$OUT/$model-pit"
done
run export.evaluate "$@" --data_dir="$OUT/dataset" --split=test --output_dir="$OUT/report" --overwrite
