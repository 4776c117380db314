"""Image files in, RGB arrays out, whatever the file holds."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hassod_ros.errors import InputError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


def read_image(source: str | os.PathLike | bytes) -> np.ndarray:
    """Read an image file (or its bytes) as (H, W, 3) uint8 RGB.

    The EXIF orientation is applied. Grey, palette and CMYK pictures become RGB, transparency is laid over white,
    16-bit values are scaled to 8 bits (65535 -> 255).

    Raises:
        InputError: No such file, not an image, or cut short.

    """
    name = "the image" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            return np.array(to_rgb(ImageOps.exif_transpose(file)))
    except FileNotFoundError as error:
        raise InputError(f"{name} does not exist; check the path") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image that can be read; remove or re-export it") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large to be read safely ({error}); shrink it") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's PNG reader raises SyntaxError on damaged chunks
        raise InputError(f"{name} is damaged ({error}); remove or re-export it") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB picture of any Pillow image; see `read_image`."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        values = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.round(np.clip(values / 257, 0, 255)).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.asarray(image)
        return Image.fromarray(np.round(np.clip(np.nan_to_num(values), 0, 255)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def list_images(source: str | os.PathLike) -> list[Path]:
    """Image files of a folder (and below, sorted by path) or of a text file with one path a line; or one image itself.

    Paths in a list may be relative to the list's folder; empty lines and lines that begin with # are passed over.

    Raises:
        InputError: No such folder or file, or it names no image.

    """
    path = Path(source)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file())
        if not found:
            raise InputError(f"{path} holds no image ({', '.join(sorted(EXTENSIONS))}); give a folder that does")
        return found
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a folder of images or a text file with one path a line")
    if path.suffix.lower() in EXTENSIONS:
        return [path]
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not a text file; give a folder of images or a list with one path a line"
        ) from error
    found = [path.parent / line for line in lines if line and not line.startswith("#")]
    if not found:
        raise InputError(f"{path} names no image; write one path a line")
    return found


def name_images(source: Path) -> tuple[Path, list[str]]:
    """The root of `list_images` and the sorted names relative to it; ids of images follow from this order.

    Raises:
        InputError: See `list_images`.

    """
    root = source if source.is_dir() else source.parent
    paths = list_images(source)
    return root.resolve(), sorted({Path(os.path.relpath(path, root)).as_posix() for path in paths})
