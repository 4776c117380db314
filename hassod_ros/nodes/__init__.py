"""The ROS 2 nodes: thin wrappers that turn messages into arrays and back; the only place that imports rclpy."""

import os
import signal
import sys
import threading

# Masks are products of small matrices. On a busy robot OpenBLAS's threads wait for each other longer than they compute;
# NumPy reads this once, when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Ctrl-C while a node still imports what it needs ends it without a traceback; from then on `run.run` sees to it.
if (
    os.path.basename(sys.argv[0]) in ("perception_node", "objects_3d_node", "inspection_node", "camera_player")
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
