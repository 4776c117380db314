"""The ROS 2 nodes: thin wrappers that turn messages into arrays and back; the only place that imports rclpy."""

import os

# Masks are products of small matrices. On a busy robot OpenBLAS's threads wait for each other longer than they compute;
# NumPy reads this once, when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
