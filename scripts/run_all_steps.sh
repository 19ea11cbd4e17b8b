#!/usr/bin/env bash
# Records both sides of a case, compares them and writes the report, after setting up if need be.
#   bash scripts/run_all_steps.sh [STEP ...] [--case pit_ti] [--out DIR] [--device cpu|gpu] ...      all of "align run --help"
# Runs in the project's root: relative paths among the arguments start there. The exit code is that of "align run".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh >&2
exec .venv/bin/python -m align run "$@"
