#!/bin/sh
# The experiment that failed, and the one that does not: both networks with both assignments, on the
# embedded corpus, evaluated side by side. Every step goes on where it was.
set -eu
BIN=${BIN:-.venv/bin}
OUT=${OUT:-experiments}
EPOCHS=${EPOCHS:-2}
SPEAKERS=${SPEAKERS:-200}

run() {
  echo
  echo "\$ python -m $*"
  "$BIN/python" -m "$@"
}

train() {
  name=$1
  shift
  run trainer.task --data_dir="$OUT/dataset" --model_dir="$OUT/$name" --epochs="$EPOCHS" \
    --learning_rate=2e-3 --schedule=cosine "$@"
}

run pipeline.voices --output_dir="$OUT/corpus" --num_speakers="$SPEAKERS"
run pipeline.preprocess --input_dir="$OUT/corpus" --output_dir="$OUT/dataset"
set --
for model in ffn lstm; do
  # The original's: one mask, voice 1's, plain mean squared error against the binary mask.
  train "$model-fixed" --model="$model" --assignment=fixed --target=ibm
  train "$model-pit" --model="$model" --assignment=pit --target=psm
  set -- "$@" --model="$OUT/$model-fixed" --model="$OUT/$model-pit"
done
run export.evaluate "$@" --data_dir="$OUT/dataset" --split=test --output_dir="$OUT/report" --overwrite
