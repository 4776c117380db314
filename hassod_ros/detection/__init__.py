"""The learned detector: Cascade Mask R-CNN with level heads, and exchange of its weights with Detectron2."""
