"""Self-supervised whole, part and subpart segmentation for robots."""

__version__ = "0.1.0"
