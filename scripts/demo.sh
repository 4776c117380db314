#!/usr/bin/env bash
# Sets up the checkout (once), then shows photographs to the perception node over ROS 2 for ten seconds and leaves
# pictures, a video and summary.json in demo_output/. Your own: scripts/demo.sh --images FOLDER_OR_VIDEO. Options: --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup_env.sh
source scripts/env.sh
exec python scripts/demo.py "$@"
