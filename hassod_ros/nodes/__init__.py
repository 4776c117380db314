"""The ROS 2 nodes: thin wrappers that turn messages into arrays and back; the only place that imports rclpy."""
