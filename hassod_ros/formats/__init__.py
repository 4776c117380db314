"""Annotations of other tools: YOLO, LabelMe, and COCO as FiftyOne and CVAT read it."""
