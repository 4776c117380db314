"""A detector of few channels for pictures of 64 pixels; a test adds the backbone."""

TINY = {
    "fpn_channels": 16,
    "anchor_sizes": (8.0, 16.0, 32.0, 64.0, 128.0),
    "rpn_pre_nms": (100, 50),
    "rpn_post_nms": (50, 20),
    "rpn_samples": 32,
    "box_samples": 32,
    "box_layers": 1,
    "box_width": 32,
    "mask_layers": 1,
    "mask_channels": 16,
    "detections": 20,
}
