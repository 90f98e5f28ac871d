#!/usr/bin/env bash
# Runs every test: those of a process of their own beside those that need this machine's networks.
#
# What the former have to say is printed last.
set -euo pipefail
cd "$(dirname "$0")/.."

run() { .venv/bin/python -m pytest -p no:cacheprovider --part "$@"; }

said=$(mktemp)
run beside >"$said" 2>&1 </dev/null &
beside=$!
trap 'kill "$beside" 2>/dev/null || true; rm -f "$said"' EXIT

failed=0
run machine || failed=$?
wait "$beside" || failed=$?
echo "==> those that keep to themselves:"
cat "$said"
exit "$failed"
