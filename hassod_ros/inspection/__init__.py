"""Learn a good part from a few pictures, then say OK, NG or UNDECIDED and why. NumPy and OpenCV only."""
