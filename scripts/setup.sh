#!/usr/bin/env bash
# Makes .venv in the project's root from requirements.lock (hashes checked) and puts the project itself in it, editable.
#   bash scripts/setup.sh               PYTHON=/path/to/python3.11 chooses the interpreter
# Quick when nothing has changed; may be killed, and may be run twice at once. Exit code 3: the environment could not be made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root="$PWD"
venv="$root/.venv"
stamp="$venv/.align-ready" # written last: what the environment was made from
mark="$venv/.align-made"   # written first: the folder is ours, and may be removed

fail() {
    echo "setup: error: $*" >&2
    exit 3
}

digest() { sha256sum "$@" | sha256sum | cut -c1-64; }

# The root is part of it: the editable install and the scripts in .venv/bin hold absolute paths, which a moved folder breaks.
wanted_packages() { echo "packages $(digest requirements.lock) in $root"; }
wanted_project() { echo "project $(digest pyproject.toml)"; }

works() { [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }
has() { [ -f "$stamp" ] && grep -qxF -- "$1" "$stamp"; }
ready() { has "$(wanted_packages)" && has "$(wanted_project)" && works; }

# A pyenv shim may exist and still run nothing, so each candidate must prove itself.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python /usr/bin/python3.11 /usr/bin/python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
        # One that was asked for by name is not silently replaced by another.
        if [ "$candidate" = "${PYTHON:-}" ]; then
            fail "PYTHON=$PYTHON is not a working Python 3.11 with venv and ensurepip; name another, or unset PYTHON"
        fi
    done
    fail "no Python 3.11 with venv and ensurepip found (tried python3.11, python3, python);" \
        "install it (Debian, Ubuntu: python3.11 and python3.11-venv) or name one: PYTHON=/path/to/python3.11"
}

pip_install() {
    # -qq: errors only. A machine's own pip settings can bring hundreds of harmless warnings, and the hashes already say
    # which file may be installed. (pip's --log would bring them back.) --no-compile: pip compiles on one core.
    if ! "$venv/bin/python" -m pip -qq --no-input --disable-pip-version-check install --no-compile --progress-bar off "$@" \
        </dev/null; then
        fail "pip could not install the packages, see above. Is there a network, and 8 GB free?"
    fi
}

make_environment() {
    local python
    python="$(find_python)"
    if [ -e "$venv" ] || [ -L "$venv" ]; then
        if [ -e "$mark" ] || [ -e "$stamp" ]; then
            echo "setup: removing the old .venv (unfinished, broken, moved, or from another lock file)"
            rm -rf "$venv"
        else
            echo "setup: .venv was not made by this script; it is kept as .venv.kept-$$"
            mv "$venv" "$venv.kept-$$"
        fi
    fi
    mkdir "$venv" || fail "cannot write to $root"
    : >"$mark"
    echo "setup: making .venv with $("$python" --version) ($python)"
    "$python" -m venv "$venv" || fail "$python -m venv failed, see above"
    echo "setup: installing $(grep -c '==' requirements.lock || true) locked packages, 6.5 GB with both frameworks: a few minutes"
    # --no-deps: the lock is complete, there is nothing to resolve.
    pip_install --require-hashes --no-deps -r requirements.lock
    # Not left to the first import: that stores nothing where PYTHONDONTWRITEBYTECODE is set, and every process would pay
    # 8 s. A file that is no Python of this version (a template) does not compile; that is no fault.
    "$venv/bin/python" -m compileall -qq -j 0 -x '/tests?/' .venv/lib/python3.11/site-packages || true
    wanted_packages >"$stamp"
}

# Shows at once whether the frameworks work on this machine. Each in a process of its own, both together.
try_imports() {
    local jobs=() job
    if grep -q '^torch==' requirements.lock; then
        "$venv/bin/python" -W ignore -c 'import torch, torchvision, timm, skimage, sklearn' </dev/null &
        jobs+=($!)
    fi
    if grep -q '^paddlepaddle==' requirements.lock; then
        "$venv/bin/python" -W ignore -c 'import paddle, reprod_log, numba' </dev/null &
        jobs+=($!)
    fi
    for job in "${jobs[@]}"; do
        wait "$job" || fail "a framework was installed but cannot be imported, see above (to begin afresh: rm -rf '$venv')"
    done
}

# The comparison's kernels, which the first run would otherwise compile while it records; a failure shows there.
compile_kernels() {
    if grep -q '^numba==' requirements.lock; then
        "$venv/bin/python" -m align.compare.compiled </dev/null >/dev/null 2>&1 || true
    fi
}

add_project() {
    echo "setup: adding the project, trying both frameworks"
    pip_install --no-deps --no-build-isolation -e .
    compile_kernels &
    try_imports
    wait
    { wanted_packages && wanted_project; } >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

if ready; then exit 0; fi

for command in flock sha256sum; do
    command -v "$command" >/dev/null || fail "the command '$command' is missing (util-linux, coreutils)"
done
# The lock is on the root folder itself: it is always there, and leaves no file behind. It lasts as long as this process
# or a pip that outlives it.
exec 9<"$root"
if ! flock --nonblock 9; then
    echo "setup: another set-up of this folder is running; waiting for it"
    flock 9
fi
if ready; then exit 0; fi

SECONDS=0
if ! has "$(wanted_packages)" || ! works; then make_environment; fi
add_project
echo "setup: ready in $SECONDS s"
