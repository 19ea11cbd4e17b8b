#!/usr/bin/env bash
# Remakes requirements.lock from pyproject.toml with every extra: exact versions and hashes, for Python 3.11 on Linux x86_64.
#   bash scripts/lock.sh [OPTION OF "uv pip compile" ...]     e.g. --upgrade, or --upgrade-package ruff
# Versions already in the lock stay as they are unless an option says otherwise. Needs uv, and the network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv="${UV:-uv}"
if ! command -v "$uv" >/dev/null; then
    echo "lock: '$uv' is not a command here; install uv (python3 -m pip install uv) or name it: UV=/path/to/uv bash scripts/lock.sh" >&2
    exit 3
fi

# The lock must hold on every machine, so nothing that is special to this one (mirrors, folders of wheels) may steer it.
for name in $(compgen -e); do
    case "$name" in PIP_* | UV_*) unset "$name" ;; esac
done

# uv reads the old lock for the versions to keep, and writes the new one aside: a failure leaves the old one whole.
new="requirements.lock.$$"
trap 'rm -f "$new"' EXIT
if [ -f requirements.lock ]; then cp requirements.lock "$new"; fi

"$uv" pip compile pyproject.toml --no-config --all-extras --quiet --system-certs \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-build \
    --generate-hashes --no-header --no-annotate --output-file "$new" "$@"
mv "$new" requirements.lock
echo "lock: requirements.lock holds $(grep -c '==' requirements.lock) packages"
