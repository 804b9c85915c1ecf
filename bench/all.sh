#!/bin/sh
# All of speed.md and README's figure anew, by one command on a machine that does nothing else (two cores: about 45 minutes):
#
#     sh bench/all.sh --data DIR --tokenizer DIR             SST-2's files, and a directory with a BERT tokenizer
#     BENCHES="step inference" sh bench/all.sh ...           some of them
#
# Seven interleaved pairs each, but for growth.py and memory.py, whose cases are processes of their own. Each bench leaves its results
# when it is done, and the tables are made after each: a stop loses only the bench that was at it. One that fails is told at the end.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE  # the library is to choose its kernels itself
here=$(dirname "$0")
failed=
for bench in ${BENCHES:-step inference epoch augment growth memory}; do
    date
    case $bench in
        step) python "$here/step.py" "$@" --cases full train --batches 2 ;;
        inference) python "$here/inference.py" "$@" --batches 1 32 --sentences 32 ;;
        epoch) python "$here/epoch.py" "$@" --pad 64 --steps 12 --released-steps 1 ;;
        augment) python "$here/augment.py" --sentences 16 ;;
        growth) python "$here/growth.py" --pairs 1 ;;
        memory) python "$here/memory.py" --pairs 1 --cases 8x128 32x128 32x16 ;;
        *) echo "no bench $bench" >&2; false ;;
    esac || failed="$failed $bench"
    python "$here/tables.py" || failed="$failed tables"
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
