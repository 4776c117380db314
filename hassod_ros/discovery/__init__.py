"""Frames in, part/whole instances out, without labels and without training (HASSOD, stage 1)."""
