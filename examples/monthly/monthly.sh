#!/usr/bin/env bash
# A retraining: which method and model (sweep, export), the new quarter (update), may it go live (gate), promote.
# usage: monthly.sh FOLDER [spoilt]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
mkdir -p "$1"
"$python" "$here/make_quarters.py" "$1" "${2:-}"
cd "$1"

# Once: the sweep that chooses the method, and the model that goes live. Run again, it trains nothing that is complete.
"$python" -m orchestrator sweep "$here/sweep.yaml" --require-answer --quiet
[ -d champion ] || "$python" -m orchestrator export runs/fraud --keep-evaluation -o champion

# Each quarter: learn it, and replace the champion only if the gate says so.
"$python" -m orchestrator update champion --data next.parquet --task 2024Q2 -o challenger
if "$python" -m orchestrator gate --champion champion --challenger challenger --policy "$here/policy.yaml"; then
    rm -rf previous && mv champion previous && mv challenger champion
    echo "promoted: champion is now the model that learned 2024Q2"
else
    code=$?
    echo "not promoted (exit code $code): champion stays"
    exit "$code"
fi
