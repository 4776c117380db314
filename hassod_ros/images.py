"""Image files in, RGB arrays out, whatever the file holds."""

import codecs
import io
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hassod_ros.errors import InputError
from hassod_ros.files import write_bytes

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
_REASONS_NAMED = 5

logger = logging.getLogger(__name__)


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
            return np.array(to_8_bits(ImageOps.exif_transpose(file)))
    except FileNotFoundError as error:
        raise InputError(f"{name} does not exist; check the path") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image that can be read; remove or re-export it") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large to be read safely ({error}); shrink it") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's PNG reader raises SyntaxError on damaged chunks
        raise InputError(_fault(name, error)) from error


def _fault(name: str | os.PathLike, error: Exception) -> str:
    """What is wrong with a file that is there: a number means that the system refuses it, not that it is damaged."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name} cannot be read ({error.strerror}); check the path and its permissions"
    return f"{name} is damaged ({error}); remove or re-export it"


def to_8_bits(image: Image.Image) -> Image.Image:
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


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """(H, W) of an image file as `read_image` returns it, from its header alone.

    Raises:
        InputError: No such file, or not an image.

    """
    try:
        with Image.open(path) as file:
            whole = file.format == "PNG" and "exif" not in file.info  # asked for EXIF, Pillow would read all of it
            turned = not whole and file.getexif().get(0x0112, 1) >= 5  # orientations from 5 on swap the sides
            width, height = file.size
            return (width, height) if turned else (height, width)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large to be read safely ({error}); shrink it") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that can be read; remove or re-export it") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(_fault(path, error)) from error


def write_image(path: str | os.PathLike, image: np.ndarray, *, quality: int = 95) -> None:
    """Write (H, W, 3) uint8 RGB atomically, in the format that the name's ending says.

    The file is encoded in memory: OpenCV opens only names that are valid UTF-8.

    Raises:
        InputError: The folder cannot be written or the disk is full.

    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if Path(path).suffix.lower() in (".jpg", ".jpeg") else []
    done, data = cv2.imencode(Path(path).suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise InputError(f"{path} cannot be encoded at {image.shape[1]}x{image.shape[0]}; shrink the picture")
    write_bytes(path, data.tobytes())


def list_images(source: str | os.PathLike) -> list[Path]:
    """Image files of a folder (and below, sorted by path) or of a text file with one path a line; or one image itself.

    Links are followed, but no folder is listed twice, so that loops end; what is hidden (.name) is passed over. What is
    passed over is logged as one warning that counts the reasons. Paths in a list may be relative to the list's folder;
    empty lines and lines that begin with # are passed over.

    Raises:
        InputError: No such folder or file, or it names no image.

    """
    path = Path(source)
    if path.is_dir():
        passed: Counter[str] = Counter()
        found = sorted(_walk(path, passed))
        reasons = _counted(passed)
        if not found:
            there = f"; there are {reasons}" if reasons else ""
            raise InputError(f"{path} holds no image ({', '.join(sorted(EXTENSIONS))}){there}; give a folder that does")
        if reasons:
            logger.warning("%s: %d images; passed over %s", path, len(found), reasons)
        return found
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a folder of images or a text file with one path a line")
    if path.suffix.lower() in EXTENSIONS:
        return [path]
    found = [path.parent / line for line in _lines(path) if line and not line.startswith("#")]
    if not found:
        raise InputError(f"{path} names no image; write one path a line")
    return found


def image_root(source: str | os.PathLike) -> Path:
    """The folder that names of images are relative to: a folder itself, or the one that a list or an image lies in."""
    path = Path(source)
    return path if path.is_dir() else path.parent


def name_images(source: Path) -> tuple[Path, list[str]]:
    """The root of `list_images` and the sorted names relative to it; ids of images follow from this order.

    Raises:
        InputError: See `list_images`.

    """
    root = image_root(source)
    paths = list_images(source)
    return root.resolve(), sorted({Path(os.path.relpath(path, root)).as_posix() for path in paths})


def keep_apart(folder: str | os.PathLike, source: str | os.PathLike) -> None:
    """Refuse to write pictures where those lie that they are made from.

    They would be read with them the next time, and one of the same name would take the other's place.

    Args:
        folder: That is to be written.
        source: Folder, list or image, as for `list_images`.

    Raises:
        InputError: `folder` is the source or lies in it, or holds an image of a list.

    """
    path, target = Path(source), Path(folder).resolve()
    if path.is_dir():
        if target.is_relative_to(path.resolve()):
            raise InputError(
                f"{folder} lies in {source}, which would be read with it the next time; choose another --out"
            )
    elif path.is_file() and any(each.resolve().parent == target for each in list_images(path)):
        raise InputError(f"{folder} holds images of {source}, which could be written over; choose another --out")


def picture_names(names: Sequence[str], suffix: str = ".jpg") -> list[str]:
    """One file name for each image name, all different: folders are joined by _, endings kept where names meet.

    Example:
        >>> picture_names(["a.jpg", "a.png", "below/b.png"])
        ['a_jpg.jpg', 'a_png.jpg', 'below_b.jpg']

    """
    parts = [[part for part in Path(name).parts if part not in ("..", "/")] for name in names]
    short = ["_".join([*each[:-1], Path(each[-1]).stem]) for each in parts]
    often = Counter(short)
    full = [
        stem if often[stem] == 1 else f"{stem}_{Path(each[-1]).suffix[1:]}"
        for stem, each in zip(short, parts, strict=True)
    ]
    taken: Counter[str] = Counter()
    unique = []
    for name in full:
        taken[name] += 1
        unique.append(f"{name}{suffix}" if taken[name] == 1 else f"{name}_{taken[name]}{suffix}")
    return unique


def _walk(top: Path, passed: Counter[str]) -> Iterator[Path]:
    """Images below `top`; real folders come first, so that a link to one of them lists nothing twice."""
    seen: set[tuple[int, int]] = set()
    links = [top]
    while links:
        folders, links = sorted(links), []
        while folders:
            folder = folders.pop()
            try:
                status = folder.stat()
                if (status.st_dev, status.st_ino) in seen:
                    passed["a link to a folder that is listed already"] += 1
                    continue
                seen.add((status.st_dev, status.st_ino))
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                passed[f"a folder that cannot be read ({error.strerror})"] += 1
                continue
            for entry in entries:
                path = folder / entry.name
                if entry.name.startswith("."):  # thumbnails, what is written at this moment, a Mac's notes on each file
                    passed["hidden"] += 1
                    continue
                try:
                    is_folder, is_file = entry.is_dir(), entry.is_file()
                except OSError as error:
                    passed[f"a link that cannot be followed ({error.strerror})"] += 1
                    continue
                if is_folder:
                    (links if entry.is_symlink() else folders).append(path)
                elif not is_file:
                    passed["a broken link" if entry.is_symlink() else "no regular file"] += 1
                elif path.suffix.lower() in EXTENSIONS:
                    yield path
                else:
                    passed[path.suffix.lower() or "without an ending"] += 1


def _counted(reasons: Counter[str]) -> str:
    """The counts of `reasons` for people, '' for none."""
    if not reasons:
        return ""
    named = [f"{count} {reason}" for reason, count in reasons.most_common(_REASONS_NAMED)]
    rest = sum(reasons.values()) - sum(count for _, count in reasons.most_common(_REASONS_NAMED))
    return f"{sum(reasons.values())} entries ({', '.join(named)}{f', {rest} others' if rest else ''})"


def _lines(path: Path) -> list[str]:
    """Lines of a list: UTF-8 or UTF-16 with a byte-order mark, or file names in the system's bytes."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding, errors = "utf-16", "strict"
    else:
        encoding, errors = "utf-8-sig", "surrogateescape"
    try:
        lines = [line.strip() for line in data.decode(encoding, errors).split("\n")]
        odd = [line for line in lines if line != line.encode("utf-8", "replace").decode()]
        if odd and not any((path.parent / line).exists() for line in odd):
            raise ValueError(odd[0])
    except (ValueError, OSError) as error:  # not text; or no path, such as a NUL or a line without end
        raise InputError(
            f"{path} is not a text file; give a folder of images or a list with one path a line"
        ) from error
    return lines


def shrunk(image: np.ndarray, scale: float) -> np.ndarray:
    """An image (H, W, C) uint8 scaled by at most 1, by area averaging; no side becomes less than a pixel."""
    height, width = image.shape[:2]
    if min(height, width) * scale > 0.5:
        return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def halved(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (H, W, C) uint8 halved while it stays at least as large as `size` (h, w) and its sides are even.

    A half is the mean of 2 x 2 pixels; to be resized the rest of the way. Area averaging in one step takes four times
    as long.
    """
    while image.shape[0] % 2 == image.shape[1] % 2 == 0 and all(
        side >= 2 * least for side, least in zip(image.shape, size, strict=False)
    ):
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return image
