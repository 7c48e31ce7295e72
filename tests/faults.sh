#!/usr/bin/env bash
# Runs the fault suite in two streams, because most of its time is waiting; each prints the table of its groups.
# The output of the second one is shown when it has ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
FAULT_SEED="${FAULT_SEED:-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')}"
export FAULT_SEED FAULT_ROUNDS="${FAULT_ROUNDS:-5}" FAULT_FULL="${FAULT_FULL:-1}" WAYBILL_TEST_PATIENCE=180
output="$(mktemp)" stream=""
trap 'kill "$stream" 2>/dev/null || true; rm -f "$output"' EXIT

faults() { .venv/bin/python -m pytest -m faults "${@/#/tests/faults/test_}"; }

faults clickhouse.py storage.py storage_azure.py storage_google.py kafka.py postgres.py containers.py >"$output" 2>&1 &
stream=$!
failed=0
faults process.py mail.py receiver.py user.py poison.py clients.py || failed=1
wait "$stream" || failed=1
cat "$output"
exit "$failed"
