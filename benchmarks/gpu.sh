#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fills the GPU column of the targets, in under eight minutes on one H100 or H200.
#
#     sh benchmarks/gpu.sh [--quick] [--device cpu] [--shape SHAPE] [--only STAGE]
#
#     PYTHON            our interpreter (default python3); PYTHONPATH has to lead to vlakit
#     REFERENCE_PYTHON  the one with LeRobot (default: ours side only)
#     REFERENCE_PATH    its PYTHONPATH, where LeRobot was unpacked into a folder
#     OUT               folder of the results (default benchmarks/results)
#     THREADS           torch's threads on both sides (default 8)
#
# Every stage has a time limit and a file of its own, so one that fails or hangs loses only its own
# rows; --only adds to the file of an earlier run. Weights are random and never on disk. --device cpu --shape tiny rehearses it without a GPU.
set -u

here=$(dirname "$0")
python=${PYTHON:-python3}
out=${OUT:-"$here/results"}
threads=${THREADS:-8}
device=cuda shape=full dtype=bfloat16 chunks=20 steps=5 quick= only=
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=yes chunks=5 steps=2 ;;
    --device) device=$2 && shift ;;
    --shape) shape=$2 && shift ;;
    --only) only=$2 && shift ;;
    *) echo "unknown argument $1; see the head of $0" >&2 && exit 2 ;;
    esac
    shift
done
reference=
[ -n "${REFERENCE_PYTHON:-}" ] && reference="--reference-python $REFERENCE_PYTHON"
mkdir -p "$out"
results="$out/$(date +%F)-$device.jsonl"
[ -n "$only" ] || : >"$results"
start=$(date +%s)
failed=

# stage NAME SECONDS FILE [ARGUMENTS]
stage() {
    name=$1 limit=$2 file=$3
    shift 3
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    echo "== $name, after $(($(date +%s) - start)) s, at most $limit s" >&2
    # The reference is a child of the benchmark: the limit ends the whole group.
    # shellcheck disable=SC2086
    timeout --kill-after=5 "$limit" "$python" "$here/$file" --device "$device" --dtype "$dtype" \
        --threads "$threads" "$@" >"$out/$name.jsonl" 2>"$out/$name.log" ||
        failed="$failed $name($?)"
    cat "$out/$name.jsonl" >>"$results"
    cut -c -400 "$out/$name.jsonl" >&2
    tail -n 5 "$out/$name.log" >&2
}

policy() {
    name=$1 limit=$2 file=$3
    shift 3
    # shellcheck disable=SC2086
    stage "$name" "$limit" "$file" --shape "$shape" $reference \
        ${REFERENCE_PATH:+--reference-path "$REFERENCE_PATH"} "$@"
}

stage rates 20 device_rates.py
policy pi0_fast_chunk 130 pi0_fast_inference.py --repeats "$chunks" --compile
policy eo1_chunk 80 eo1_inference.py --repeats "$chunks" --compile
policy pi0_fast_step 75 pi0_fast_train_step.py --repeats "$steps" --checkpointing no
policy eo1_step_recomputed 100 eo1_train_step.py --repeats "$steps" --checkpointing yes
[ -n "$quick" ] || policy eo1_step 70 eo1_train_step.py --repeats "$steps" --checkpointing no

"$python" "$here/table.py" "$results"
echo "done after $(($(date +%s) - start)) s: $results" >&2
if [ -n "$failed" ]; then
    echo "failed (124 is the time limit): $failed" >&2
    exit 1
fi
