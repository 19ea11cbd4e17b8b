#!/usr/bin/env bash
# Runs the step init alone; arguments as for run_all_steps.sh.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_all_steps.sh" init "$@"
