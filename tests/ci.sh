#!/usr/bin/env bash
# Runs every test with every real service required, in two streams: one in parallel workers, and one that mostly waits
# and runs containers. The output of the second is shown when it has ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export WAYBILL_TEST_REAL=require WAYBILL_TEST_PATIENCE=180 CASES="${CASES:-30}"
waiting=(tests/chart tests/observability tests/image tests/compose tests/pods)
output="$(mktemp)" stream=""
trap 'kill "$stream" 2>/dev/null || true; rm -f "$output"' EXIT

tests() { .venv/bin/python -m pytest --durations=15 "$@"; }

run_waiting() {
  tests/services/tools.sh
  tests "${waiting[@]}"
}

tests/services/install.sh
run_waiting >"$output" 2>&1 &
stream=$!
failed=0
tests -n "${WORKERS:-logical}" --dist=worksteal tests "${waiting[@]/#/--ignore=}" || failed=1
wait "$stream" || failed=1
cat "$output"
.venv/bin/python -m tests.bench.ratios || failed=1
exit "$failed"
