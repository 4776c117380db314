"""Frames from photographs, videos and recordings."""
