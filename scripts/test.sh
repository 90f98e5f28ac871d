#!/usr/bin/env bash
# Runs every test: those of a process of their own beside those that need this machine's networks.
#
# What the former have to say is printed last. Real guests, packets and clocks share a few cores here, so
# where at most $FEW tests failed they are run once more, by themselves: what then passes is told as
# unsteady and does not fail the whole; what fails twice does.
set -euo pipefail
cd "$(dirname "$0")/.."

FEW=5
scratch=$(mktemp -d)

run() { # PART [OPTION...]
    .venv/bin/python -m pytest -o cache_dir="$scratch/$1" --part "$@"
}

failed_tests() { # PART: their names, one to a line
    .venv/bin/python -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' \
        "$scratch/$1/v/cache/lastfailed"
}

once_more() { # PART STATUS: 0 if all that failed passes now
    local names
    [[ $2 == 1 ]] || return "$2" # 0: all passed; beyond 1, pytest itself failed
    names=$(failed_tests "$1")
    [[ $(wc -l <<<"$names") -le $FEW ]] || return 1
    printf '==> failed; once more, by themselves:\n%s\n' "$names"
    run "$1" --last-failed || return
    printf '==> UNSTEADY, passed the second time only:\n%s\n' "$names"
}

run beside >"$scratch/said" 2>&1 </dev/null &
beside=$!
trap 'kill "$beside" 2>/dev/null || true; rm -rf "$scratch"' EXIT

machine_status=0 beside_status=0 failed=0
run machine || machine_status=$?
wait "$beside" || beside_status=$?
echo "==> those that keep to themselves:"
cat "$scratch/said"
once_more beside "$beside_status" || failed=$?
once_more machine "$machine_status" || failed=$?
exit "$failed"
