#!/usr/bin/env bash
# Runs every test with every real service required, in two streams: one that computes, and one that mostly waits and
# tries the image.
# What the second one says is shown when it has ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export WAYBILL_TEST_REAL=require WAYBILL_TEST_PATIENCE=180
waiting=(tests/chart tests/observability tests/e2e)
said="$(mktemp)" stream=""
trap 'kill "$stream" 2>/dev/null || true; rm -f "$said"' EXIT

tests() { .venv/bin/python -m pytest --durations=15 "$@"; }

wait_for_things() {
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
wait_for_things >"$said" 2>&1 &
stream=$!
failed=0
tests tests "${waiting[@]/#/--ignore=}" || failed=1
wait "$stream" || failed=1
cat "$said"
exit "$failed"
