#!/usr/bin/env bash
# The wheel in fresh environments, of each Python there is, with the oldest and the newest of what
# pyproject.toml allows; in each, README's first commands and a part of the tests, which come from
# the unpacked sdist, so that nothing of this checkout is seen.
#
#   tests/wheels.sh [PYTHON…]       python3.10 … python3.14 of the PATH and of pyenv where none is named
#
# A line each: Python, NumPy, what an install without extras takes, what the tests say.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pythons=("$@")
if [ $# -eq 0 ]; then
    for minor in 10 11 12 13 14; do
        found=$(compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor.*/bin/python" | tail -n 1 || command -v "python3.$minor" || true)
        if [ -n "$found" ]; then pythons+=("$found"); else echo "python3.$minor is not here: left out"; fi
    done
fi

"${pythons[0]}" -m venv "$work/tools"
"$work/tools/bin/pip" install -q build uv 2> /dev/null  # uv: pip has no way to ask for the oldest
mkdir "$work/source" "$work/sdist"
git ls-files -z | tar --null -T - -c | tar x -C "$work/source"
"$work/tools/bin/python" -m build -q -o "$work/dist" "$work/source" > "$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
tar x -C "$work/sdist" --strip-components 1 -f "$work"/dist/*.tar.gz
wheel=$(echo "$work"/dist/*.whl)

failed=0
for python in "${pythons[@]}"; do
    for which in oldest newest; do
        place=$work/environment
        rm -rf "$place"
        "$python" -m venv --without-pip "$place"
        resolution=$([ $which = oldest ] && echo lowest-direct || echo highest)
        export UV_PYTHON=$place/bin/python
        "$work/tools/bin/uv" pip compile -q --no-header --only-binary :all: --resolution "$resolution" "$work/sdist/pyproject.toml" > "$work/needed"
        "$work/tools/bin/uv" pip compile -q --no-header --only-binary :all: --resolution "$resolution" --extra test "$work/sdist/pyproject.toml" > "$work/tested"
        "$work/tools/bin/uv" pip install -q --only-binary :all: -c "$work/needed" "$wheel"
        size=$(du -sm "$place"/lib/python3*/site-packages | cut -f 1)
        (cd "$work" && "$place/bin/minitinybert" --version > /dev/null && "$place/bin/minitinybert" info 4L-312D-12H-1200F > /dev/null)
        "$work/tools/bin/uv" pip install -q --only-binary :all: -c "$work/tested" "$wheel[test]"
        said=$(cd "$work/sdist" && "$place/bin/pytest" -p no:cacheprovider -r fE --tb short ${TESTS:-tests/ops tests/data tests/weights tests/commands/test_arguments.py \
            tests/commands/test_start.py tests/commands/test_demo.py tests/test_extras.py} 2>&1) && passed=yes || passed=
        versions=$("$place/bin/python" -c "import platform, numpy; print(platform.python_version(), numpy.__version__, sep=', NumPy ')")
        echo "Python $versions ($which allowed), $size MB: $(echo "$said" | tail -n 1)"
        [ -n "$passed" ] || { echo "$said" | tail -n 200; failed=1; }
    done
done
exit $failed
