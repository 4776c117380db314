#!/usr/bin/env bash
# Sets up the checkout (once), then runs formatter, linter, type checker and tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup_env.sh
source scripts/env.sh
export HASSOD_REQUIRE_ROS=1  # here a missing ROS 2 is a failure, not a reason to skip
ruff format --check .
ruff check .
mypy &  # beside the first tests
types=$!
# Two files at once, as a third of the time is waiting for processes; more threads would wait for each other.
export OMP_NUM_THREADS=1
python -m pytest -n 2 --dist loadfile "$@"
wait "$types"
