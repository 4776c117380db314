"""Scripts that discover, train and evaluate; run from a checkout or as `ros2 run hassod_ros NAME`."""
