#!/usr/bin/env bash
# Runs make targets one after the other. A target that fails does not hide those after it: the last lines name each one's outcome.
set -uo pipefail

failed=0
summary=()
for stage in "$@"; do
    seconds=$SECONDS
    if make "$stage"; then
        outcome=passed
    else
        outcome=FAILED
        failed=1
    fi
    summary+=("$(printf '  %-16s %s  %4d s' "$stage" "$outcome" $((SECONDS - seconds)))")
done
printf '== %s\n' "all stages"
printf '%s\n' "${summary[@]}"
exit $failed
