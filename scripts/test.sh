#!/usr/bin/env bash
# Lints, type-checks and tests, after setting up if need be.
#   bash scripts/test.sh [ARGUMENT OF pytest ...]      --slow: the heavy models too; tests/compare -k ulp: only those
# Every check runs even if an earlier one failed. Exit codes: 0 all passed, 1 something failed, 3 no environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh

# Two test processes on two cores: more threads in each would only fight, and one thread makes sums repeatable.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
SECONDS=0
failed=()
check() {
    local name="$1"
    shift
    echo "== $name"
    "$@" </dev/null || failed+=("$name")
}

check "ruff check" .venv/bin/python -m ruff check .
check "ruff format" .venv/bin/python -m ruff format --check .
check "mypy" .venv/bin/python -m mypy
check "pytest" .venv/bin/python -m pytest -n 2 --dist loadfile -rs "$@"

if ((${#failed[@]})); then
    printf -v names '%s, ' "${failed[@]}"
    echo "test.sh: FAILED: ${names%, } ($SECONDS s)"
    exit 1
fi
echo "test.sh: passed: ruff check, ruff format, mypy, pytest ($SECONDS s)"
