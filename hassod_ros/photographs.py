"""Photographs that are at hand without a data set: those that come with scikit-image."""

from pathlib import Path

from hassod_ros.errors import InputError

PHOTOGRAPHS = ("coffee.png", "motorcycle_left.png", "astronaut.png", "chelsea.png", "rocket.jpg")


def bundled_photographs() -> list[Path]:
    """The paths of `PHOTOGRAPHS`.

    Raises:
        InputError: scikit-image is not installed.

    """
    try:
        import skimage
    except ImportError as error:
        raise InputError("photographs of scikit-image are needed; run pip install 'hassod_ros[train]'") from error
    folder = Path(skimage.__file__).parent / "data"
    return [folder / name for name in PHOTOGRAPHS]
