# Source this (bash) to use what setup_env.sh made: Python, ROS 2 and hassod_msgs of this checkout, images over
# shared memory, and no traffic to other machines. Values that are already set win where it is a matter of taste.
_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export VIRTUAL_ENV="$_root/.venv"
if [[ ":$PATH:" != *":$VIRTUAL_ENV/bin:"* ]]; then export PATH="$VIRTUAL_ENV/bin:$PATH"; fi

# Puts a folder in front of a search path unless it is there already.
_in_front() {
  local current="${!1:-}"
  if [[ ":$current:" != *":$2:"* ]]; then export "$1=$2${current:+:$current}"; fi
}

if [[ -z "${ROS_DISTRO:-}" ]]; then
  for _folder in "$VIRTUAL_ENV"/lib/python3.11/site-packages/ros_*.libs "$VIRTUAL_ENV/lib"; do
    _in_front LD_LIBRARY_PATH "$_folder"
  done
  _in_front AMENT_PREFIX_PATH "$VIRTUAL_ENV"
  _in_front CMAKE_PREFIX_PATH "$VIRTUAL_ENV"
  export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1  # else every python starts a second time to find these libraries
fi
for _folder in "$_root"/install/lib/python3*/site-packages; do
  if [[ -d "$_folder" ]]; then
    _in_front PYTHONPATH "$_folder"
    _in_front LD_LIBRARY_PATH "$_root/install/lib"
    _in_front AMENT_PREFIX_PATH "$_root/install"
  fi
done

# Tests, nodes and Ray start hundreds of processes: without its bytecode each would compile all that it imports.
unset PYTHONDONTWRITEBYTECODE

export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
export FASTDDS_DEFAULT_PROFILES_FILE="${FASTDDS_DEFAULT_PROFILES_FILE:-$_root/config/fastdds.xml}"
unset _root _folder
unset -f _in_front
