"""Scripts that turn a trained detector into files for robots."""
