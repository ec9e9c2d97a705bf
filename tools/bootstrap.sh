#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make .venv and install vlakit with the extras given, at the versions of constraints.txt.
# Usage: tools/bootstrap.sh EXTRAS   (for example: metaworld,dev)
# The extras libero and pusht ask for packages that a rollout never opens, some of which need a compiler or a
# screen's libraries; here they are installed without those.
# Installs a missing system library where it can (root or sudo, Debian/Ubuntu), else prints the line to type.
set -eu
cd "$(dirname "$0")/.."
extras="$1"

say() { printf '%s\n' "vlakit: $*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; }
}

# need PACKAGES REASON: install Debian packages, or stop and say how.
need() {
    if can_install; then
        say "$2: installing $1"
        # An old package list makes a present package look missing, so it is refreshed first.
        as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $1 >/dev/null && return 0
    fi
    if command -v apt-get >/dev/null 2>&1; then
        say "$2. Type this, then run the command again:"
        say "    sudo apt-get update && sudo apt-get install -y --no-install-recommends $1"
    else
        say "$2. Install your distribution's packages for: $1"
    fi
    exit 1
}

has_browser() {
    for candidate in "${VLAKIT_CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable chrome; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 && return 0
    done
    return 1
}

# want PACKAGES REASON: install Debian packages where that is possible; go on without them otherwise.
want() {
    if can_install; then
        say "$2: installing $1"
        as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $1 >/dev/null && return 0
    fi
    say "$2. Going on without; to have them: sudo apt-get install -y --no-install-recommends $1"
}

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            printf '%s' "$candidate"
            return 0
        fi
    done
    return 1
}

has_libraries() {
    # MuJoCo opens these by name when it renders without a display.
    "$1" -c 'import ctypes; [ctypes.CDLL(name) for name in ("libEGL.so.1", "libGL.so.1")]' 2>/dev/null \
        || "$1" -c 'import ctypes; ctypes.CDLL("libOSMesa.so.8")' 2>/dev/null
}

python="$(find_python)" || need "python3 python3-venv" "Python 3.11, 3.12 or 3.13 is needed and none was found"
python="$(find_python)" || { say "no Python 3.11, 3.12 or 3.13 found; set PYTHON=/path/to/python"; exit 1; }

if [ ! -x .venv/bin/python ]; then
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    "$python" -c 'import ensurepip' 2>/dev/null || need "python$version-venv" "Python's venv module is missing"
    say "making .venv with $("$python" --version)"
    "$python" -m venv .venv
fi

case "$(uname -s):$extras" in
    Linux:*metaworld* | Linux:*libero*)
        has_libraries .venv/bin/python || need "libegl1 libgl1" "simulators render through EGL, which is missing"
        ;;
esac

install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@"
}

# Packages that pin or ask for what is not needed: installed alone, their real needs before them.
# pip warns about what they lack then, which is the intention.
install_alone() {
    install --no-deps "$@"
}

plain=""
for extra in $(printf '%s' "$extras" | tr ',' ' '); do
    case "$extra" in
        libero | pusht) ;;
        *) plain="$plain${plain:+,}$extra" ;;
    esac
done

case "$extras" in
    *dev*) has_browser || want chromium "reports are tested in a browser, and there is no Chromium" ;;
esac

say "installing the packages of constraints.txt (PyTorch is the largest)"
install -e ".${plain:+[$plain]}"
case ",$extras," in
    *,pusht,*)
        say "installing PushT"
        install "pymunk<7" pygame shapely opencv-python-headless
        install_alone gym-pusht
        ;;
esac
case ",$extras," in
    *,libero,*)
        say "installing LIBERO (1 GB, robosuite is the largest)"
        install "mujoco<3.9" scipy numba matplotlib opencv-python-headless easydict termcolor future pyyaml
        install_alone hf-libero robosuite bddl
        ;;
esac
