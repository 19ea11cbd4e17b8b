#!/usr/bin/env bash
# What action.yml runs: the gate as its inputs say (variables ALIGN_*), its verdict as outputs, and the exit code that
# `fail-on` asks for. The summary and the annotations are written by align itself.
set -euo pipefail

python="${ALIGN_PYTHON:-python}"
out="${ALIGN_OUT:-align-report}"
fail_on="${ALIGN_FAIL_ON:-any}"

usage() {
    echo "::error title=align::$*"
    exit 2
}

case "$fail_on" in any | misaligned | never) ;; *) usage "fail-on: $fail_on is none of any, misaligned, never" ;; esac

"$python" -c 'import align' 2>/dev/null || {
    echo "::error title=align::$python cannot import align; give the interpreter that has it (python), or extras to install (install)"
    exit 3
}

# Words as a shell would make them, quotes and all, without running anything that stands in them.
words=()
split() {
    local program='import shlex, sys; sys.stdout.write("".join(word + "\0" for word in shlex.split(sys.argv[1])))'
    "$python" -c "$program" "$1" >/dev/null 2>&1 || usage "these are no arguments: $1"
    mapfile -d '' -t words < <("$python" -c "$program" "$1")
}

if [ -n "${ALIGN_CHECK:-}" ]; then
    [ -z "${ALIGN_CASE:-}${ALIGN_AGAINST:-}" ] || usage "give check, or case and against, not both"
    split "$ALIGN_CHECK"
    command=(check "${words[@]}")
else
    command=(run)
    [ -z "${ALIGN_CASE:-}" ] || command+=(--case "$ALIGN_CASE")
    [ -z "${ALIGN_AGAINST:-}" ] || command+=(--against "$ALIGN_AGAINST")
fi
split "${ALIGN_ARGS:-}"
# Options last: `--out` here is the input's, whatever `args` says.
command+=("${words[@]}" --out "$out")

rm -f "$out/verdict.json"
echo "+ $python -m align ${command[*]}"
code=0
"$python" -m align "${command[@]}" || code=$?

tell() {
    "$python" - "$out" "$1" <<'PYTHON'
import json, pathlib, sys

path = pathlib.Path(sys.argv[1], "verdict.json")
print((json.loads(path.read_text())[sys.argv[2]] if path.is_file() else None) or "")
PYTHON
}
verdict="$(tell verdict)"
report=""
if [ -n "$verdict" ]; then report="$out/report.html"; fi
{
    echo "verdict=$verdict"
    echo "blamed-step=$(tell blamed_step)"
    echo "report=$report"
} >>"${GITHUB_OUTPUT:-/dev/stdout}"

# A verdict of an earlier run was removed above: where there is none, nothing was compared.
if [ -n "$verdict" ]; then
    case "$fail_on:$verdict" in
    never:misaligned | never:vacuous | misaligned:vacuous) exit 0 ;;
    esac
fi
exit "$code"
