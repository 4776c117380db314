"""How large the detector sees an image: Detectron2's rule."""


def input_size(size: tuple[int, int], short_side: int, max_side: int) -> tuple[int, int]:
    """(h, w) in pixels that an image of `size` (H, W) is resized to.

    The shorter side becomes `short_side`, but the longer one at most `max_side`; both are rounded half up.

    Example:
        >>> input_size((375, 500), 800, 1333), input_size((480, 1280), 800, 1333)
        ((800, 1067), (500, 1333))

    """
    scale = short_side / min(size)
    height, width = (short_side if side == min(size) else scale * side for side in size)
    if max(height, width) > max_side:
        shrink = max_side / max(height, width)
        height, width = height * shrink, width * shrink
    return max(1, int(height + 0.5)), max(1, int(width + 0.5))
