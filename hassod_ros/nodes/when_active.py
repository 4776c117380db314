"""when_active NODE COMMAND...: become COMMAND once the lifecycle node NODE is active."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.executors import ExternalShutdownException

USAGE = "use: when_active NODE COMMAND..., such as when_active /perception_node ros2 bag play FOLDER"
REMINDER = 10.0  # s between two lines about the waiting
PATIENCE = 2.0  # s for one answer; a node may die and be started again while it is asked


def wait_until_active(name: str) -> None:
    """Return once the lifecycle node of that full name is active; it need not be there yet.

    Raises:
        KeyboardInterrupt: By Ctrl-C, or SIGTERM.

    """
    rclpy.init(args=[])
    node = rclpy.create_node("when_active", use_global_arguments=False)
    try:
        client: Any = node.create_client(GetState, f"{name}/get_state")
        reminded = time.monotonic()
        while True:
            future = client.call_async(GetState.Request()) if client.service_is_ready() else None
            if future is None:
                rclpy.spin_once(node, timeout_sec=0.2)
            else:
                rclpy.spin_until_future_complete(node, future, timeout_sec=PATIENCE)
                if future.done() and future.result().current_state.id == State.PRIMARY_STATE_ACTIVE:
                    return
                client.remove_pending_request(future)
                time.sleep(0.1)
            if time.monotonic() - reminded > REMINDER:
                reminded = time.monotonic()
                print(f"when_active: still waiting for {name} to become active", flush=True)
    except ExternalShutdownException as error:
        raise KeyboardInterrupt from error
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; does not return where the command could be started."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) < 2:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        wait_until_active(words[0])
        os.execvp(words[1], words[1:])
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"when_active: {words[1]} cannot be started: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main())
