"""What a node's process needs before it begins: memory that stays, threads that fit, images that arrive."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import cv2
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

_PROFILE = "FASTDDS_DEFAULT_PROFILES_FILE"
# mallopt's numbers (malloc.h) and bytes. glibc otherwise gives the memory of large images back to the kernel after each
# of them, and takes thousands of page faults to get it again. The launch files set the same for camera drivers.
_MMAP_THRESHOLD = (-3, 32 * 2**20)
_TRIM_THRESHOLD = (-1, 256 * 2**20)


def prepare_process() -> None:
    """Set what has to be set before the first image and before ROS begins; what the user has set stays.

    NumPy's threads are set where this package is imported, `hassod_ros.nodes`, which is before NumPy. OpenCV gets one
    thread for the same reason: on a busy robot the others are waited for longer than they help.
    """
    keep_memory()
    cv2.setNumThreads(1)
    profile = fast_dds_profile()
    if profile is not None:
        os.environ.setdefault(_PROFILE, str(profile))


def keep_memory() -> bool:
    """Have glibc keep the memory of images for the next one; False where the C library is another."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return all(
        mallopt(number, size) == 1
        for variable, (number, size) in (
            ("MALLOC_MMAP_THRESHOLD_", _MMAP_THRESHOLD),
            ("MALLOC_TRIM_THRESHOLD_", _TRIM_THRESHOLD),
        )
        if variable not in os.environ
    )


def fast_dds_profile() -> Path | None:
    """The package's Fast DDS profile, installed or in the checkout; without it images do not fit the shared memory."""
    try:
        share = Path(get_package_share_directory("hassod_ros"))
    except PackageNotFoundError:
        share = Path(__file__).resolve().parents[2]
    profile = share / "config" / "fastdds.xml"
    return profile if profile.is_file() else None
