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
export OMP_NUM_THREADS=1  # two files at once are enough for two cores: threads of both would wait for each other
# `tests/conftest.py` says which files come first.
python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
wait "$types"
