#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the environment of the reference, LeRobot 0.6.1 on Python 3.12, and prints its interpreter.
#
#     sh benchmarks/reference_environment.sh [FOLDER]      default: outputs/reference
#
# A folder that is complete is left as it is. Takes 6 GB. `PYTHON312` names an interpreter that is
# neither on PATH nor pyenv's.
set -eu

folder=${1:-"$(dirname "$0")/../outputs/reference"}
package='lerobot[training,eo1,pi]==0.6.1'
complete="$folder/.complete"

is_312() {
    "$1" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null
}

find_312() {
    for python in "${PYTHON312:-}" python3.12 python3 python \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python; do
        [ -n "$python" ] && command -v "$python" >/dev/null && is_312 "$python" || continue
        command -v "$python"
        return
    done
    {
        echo "No Python 3.12 with the module venv was found on PATH or among pyenv's versions."
        echo "LeRobot 0.6.1 needs it. Install one (apt-get install python3.12-venv, or"
        echo "pyenv install 3.12), or name one: PYTHON312=/path/to/python3.12 sh $0 $folder"
    } >&2
    exit 1
}

if [ "$(cat "$complete" 2>/dev/null)" != "$package" ]; then
    python=$(find_312)
    "$python" -m venv "$folder"
    echo "installing $package in $folder" >&2
    "$folder/bin/python" -m pip install --quiet "$package" >&2
    "$folder/bin/python" -c 'import lerobot.policies.eo1.modeling_eo1' >&2
    echo "$package" >"$complete"
fi
echo "$(cd "$folder" && pwd)/bin/python"
