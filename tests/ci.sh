#!/usr/bin/env bash
# Runs every test with every real service required, in two streams: one in parallel workers, and one that mostly waits
# and tries the image. The output of the second is shown when it has ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export WAYBILL_TEST_REAL=require WAYBILL_TEST_PATIENCE=180 CASES="${CASES:-100}"
waiting=(tests/chart tests/observability)
output="$(mktemp)" stream=""
trap 'kill "$stream" 2>/dev/null || true; rm -f "$output"' EXIT

tests() { .venv/bin/python -m pytest --durations=15 "$@"; }

run_waiting() {
  tests/services/tools.sh
  tests "${waiting[@]}"
  try_image
}

# The image's root needs mounts of its own, which a container without privileges may not make.
try_image() {
  if unshare --mount true 2>/dev/null; then
    .venv/bin/python -m tests.image
  else
    echo "the image was not tried: no right to mount"
  fi
}

tests/services/install.sh
run_waiting >"$output" 2>&1 &
stream=$!
failed=0
tests -n logical --maxprocesses=4 --dist=worksteal tests "${waiting[@]/#/--ignore=}" || failed=1
wait "$stream" || failed=1
cat "$output"
exit "$failed"
