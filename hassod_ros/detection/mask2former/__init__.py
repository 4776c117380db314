"""Mask2Former with an ancestor head: the model of SOHES' second and third phase."""
