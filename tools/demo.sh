#!/bin/sh
# The whole path on an embedded corpus: recordings, dataset, training, SavedModel, voices, report.
# Each line that it prints after a $ can be typed by hand.
set -eu
BIN=${BIN:-.venv/bin}
DEMO=${DEMO:-demo}
EPOCHS=${EPOCHS:-2}
SPEAKERS=${SPEAKERS:-130}

# Killing the script ends the step that is running.
child=
trap 'trap - TERM; kill -TERM $child; wait; exit 143' TERM
trap 'trap - INT; kill -TERM $child; wait; exit 130' INT

step() {
  echo
  echo "── $1"
  shift
  echo "\$ python -m $*"
  "$BIN/python" -m "$@" &
  child=$!
  wait $child
}

start=$(date +%s)
step "1/7 Synthetic speakers read real sentences, in TIMIT's layout and file format" \
  pipeline.voices --output_dir="$DEMO/corpus" --num_speakers="$SPEAKERS"
step "2/7 Recordings become mixtures, spectrograms and masks, in sharded TFRecords" \
  pipeline.preprocess --input_dir="$DEMO/corpus" --output_dir="$DEMO/dataset"
step "3/7 An LSTM learns to tell two voices apart" \
  trainer.task --data_dir="$DEMO/dataset" --model=lstm --model_dir="$DEMO/run" --epochs="$EPOCHS" \
  --learning_rate=2e-3 --schedule=cosine
step "4/7 The best checkpoint becomes a SavedModel" \
  export.saved_model --model_dir="$DEMO/run" --output_dir="$DEMO/model" --overwrite
step "5/7 A mixture of two speakers it never heard is taken apart" \
  export.example --data_dir="$DEMO/dataset" --split=test --output_dir="$DEMO/example"
step "   " \
  export.separate "$DEMO/example/mixture.wav" --model="$DEMO/model" --output_dir="$DEMO/voices" --plot
step "6/7 The same by the model that comes with the package, which knows real voices alone" \
  export.separate "$DEMO/example/mixture.wav" --output_dir="$DEMO/voices_shipped" --plot
step "    How well? Twenty such mixtures, both models, beside what ideal masks would reach" \
  export.evaluate --model="$DEMO/model" --model=two-voices-8khz --data_dir="$DEMO/dataset" --split=test \
  --max_mixtures=20 --output_dir="$DEMO/report" --overwrite
step "7/7 A conversation of two synthetic speakers: turns, an interruption, a pause; who speaks when" \
  export.demo --output_dir="$DEMO/conversation"
echo
echo "Done in $(($(date +%s) - start)) seconds. Listen to and look at:"
for path in example/mixture.wav voices/*.wav voices/*.png voices_shipped/*.wav run/curves.png report/report.html \
  conversation/*.wav conversation/*.rttm conversation/*.png; do
  for file in "$DEMO"/$path; do [ -e "$file" ] && echo "  $file"; done
done
