"""From a trained detector to a robot's model file: export, quantisation, and the gates before it is written."""
