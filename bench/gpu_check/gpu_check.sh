#!/usr/bin/env bash
# In the repository's root: bash bench/gpu_check/gpu_check.sh [--quick] [--seconds N]. What it does, and what to bring: README.md beside it.
set -u
cd "$(dirname "$0")/../.." || exit
export OUT=${OUT:-$PWD/gpu_check_out} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 HYPOTHESIS_PROFILE=${HYPOTHESIS_PROFILE:-few}
mkdir -p "$OUT"
site=$(mktemp -d)
wheels=$(ls .whl/*.whl 2>/dev/null | grep -v /mpich-)
if [ -n "$wheels" ]; then # no quotes: a word a wheel
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" $wheels || exit
fi
if ls .whl/mpich-*.whl >/dev/null 2>&1; then # pip --target drops a wheel's lib/, and a zip file holds links as text
    python3 -m zipfile -e .whl/mpich-*.whl "$site/mpi" || exit
    mpi=$(ls -d "$site"/mpi/mpich-*.data/data)
    chmod +x "$mpi"/bin/*
    ln -sf mpiexec.hydra "$mpi/bin/mpiexec"
    export MPI4PY_LIBMPI=$mpi/lib/libmpi.so.12 PATH=$mpi/bin:$PATH
fi
ln -s "$PWD/reference" "$site/minitinybert_reference" # the name under which pyproject.toml installs it
export PYTHONPATH=$PWD:$site${PYTHONPATH:+:$PYTHONPATH}
exec python3 bench/gpu_check/gpu_check.py "$@"
