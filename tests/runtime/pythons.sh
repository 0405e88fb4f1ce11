#!/usr/bin/env bash
# The runtime's tests under other Pythons: its wheel, without torch and onnx, in a virtual environment for each.
#
#     tests/runtime/pythons.sh .runtime python3.10 python3.12 …   after `make runtime`; `make test-pythons` does both
set -euo pipefail
folder=$1
mapfile -t tests < <(grep -v '^#' "$(dirname "$0")/tests.txt")
absent=() failed=() passed=()
for python in "${@:2}"; do
    if ! "$python" -c '' 2>/dev/null; then
        absent+=("$python")
        continue
    fi
    venv=$folder/$(basename "$python")
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --constraint constraints.txt \
        "$(echo "$folder"/wheel/edge_resnet-*.whl)[camera,cuda]" hypothesis pytest pytest-xdist
    "$venv/bin/python" --version
    if "$venv/bin/pytest" -q --numprocesses auto --dist loadfile --bundle "$folder/demo.edge" "${tests[@]}"; then
        passed+=("$python")
    else
        failed+=("$python")
    fi
done
echo "passed: ${passed[*]:-none}; failed: ${failed[*]:-none}; not at hand: ${absent[*]:-none}"
((${#failed[@]} == 0 && ${#passed[@]} > 0))
