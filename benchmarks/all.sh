#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every benchmark that has a reference, both sides in turn, and prints the table of targets.
#
#     sh benchmarks/all.sh [--quick] [REFERENCE_PYTHON]
#
# Without REFERENCE_PYTHON it is made first (reference_environment.sh). Lines go to
# benchmarks/results/<date>-cpu.jsonl; see gpu.sh for a GPU. --quick takes small networks and few
# repeats. PYTHON names our interpreter (default .venv/bin/python), THREADS torch's threads (default
# 2), OUT the folder of the results. A benchmark that fails is named at the end, and loses only its own lines.
set -u

here=$(dirname "$0")
python=${PYTHON:-"$here/../.venv/bin/python"}
threads=${THREADS:-2}
shape=middle steps=3 chunks=10
if [ "${1:-}" = --quick ]; then
    shape=tiny steps=1 chunks=2
    shift
fi
reference=${1:-"$(sh "$here/reference_environment.sh")"}
[ -x "$reference" ] || exit 1

results=${OUT:-"$here/results"}/$(date +%F)-cpu.jsonl
failed=
: >"$results"

run() {
    file=$1
    shift
    echo "== $file $*" >&2
    "$python" "$here/$file" --threads "$threads" --reference-python "$reference" "$@" \
        >>"$results" || failed="$failed $file"
}

run startup.py --repeats "$steps"
run dataset_access.py --repeats "$steps"
run pi0_fast_inference.py --shape "$shape" --repeats "$chunks"
run eo1_inference.py --shape "$shape" --repeats "$chunks"
run pi0_fast_train_step.py --shape "$shape" --repeats "$steps" --checkpointing no
run eo1_train_step.py --shape "$shape" --repeats "$steps"
run checkpoint_loading.py --repeats "$steps"
run fast_tokenizer.py --repeats "$steps"

"$python" "$here/table.py" "$results"
echo "lines: $results" >&2
if [ -n "$failed" ]; then
    echo "failed:$failed" >&2
    exit 1
fi
