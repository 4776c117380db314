import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hassod_ros.errors import InputError
from hassod_ros.images import (
    keep_apart,
    list_images,
    name_images,
    picture_names,
    read_image,
    read_size,
    shrunk,
    write_image,
)

RAMP = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.webp", "ä ö.PNG"])
def test_lossless_files(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    Image.fromarray(RAMP).save(tmp_path / name, **options)
    found = read_image(tmp_path / name)
    assert (found.dtype, found.shape) == (np.uint8, (4, 4, 3))
    np.testing.assert_array_equal(found, RAMP)
    found[0, 0] = 1  # a caller may draw on it


def test_path_as_string_and_bytes(tmp_path):
    data = encoded(Image.fromarray(RAMP), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), RAMP)
    np.testing.assert_array_equal(read_image(data), RAMP)


def test_jpeg():
    picture = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    found = read_image(encoded(Image.fromarray(picture), "JPEG", quality=95))
    assert np.abs(found.astype(int) - picture).max() <= 4


def test_grey():
    found = read_image(encoded(Image.fromarray(RAMP[:, :, 0]), "PNG"))
    np.testing.assert_array_equal(found, RAMP[:, :, :1].repeat(3, axis=2))


def test_black_and_white():
    found = read_image(encoded(Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1"), "PNG"))
    assert found.tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_transparency_lies_over_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    found = read_image(encoded(Image.fromarray(rgba), "PNG"))
    assert found[0, :2].tolist() == [[10, 20, 30], [255, 255, 255]]
    assert np.abs(found[0, 2].astype(int) - 127).max() <= 1


def test_grey_with_transparency():
    grey = Image.fromarray(np.array([[[7, 255], [7, 0]]], np.uint8), mode="LA")
    assert read_image(encoded(grey, "PNG")).tolist() == [[[7, 7, 7], [255, 255, 255]]]


def test_palette():
    picture = Image.fromarray(RAMP).quantize(16)
    np.testing.assert_array_equal(read_image(encoded(picture, "PNG")), np.asarray(picture.convert("RGB")))


def test_palette_with_a_transparent_colour():
    picture = Image.new("P", (2, 1))
    picture.putpalette([200, 0, 0, 0, 0, 200])
    picture.putpixel((1, 0), 1)
    found = read_image(encoded(picture, "GIF", transparency=1))
    assert found.tolist() == [[[200, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_cut(kind):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    found = read_image(encoded(Image.fromarray(values), kind))
    assert found[0, :, 0].tolist() == [0, 1, 128, 255]
    assert found.shape == (1, 4, 3)


def test_16_bit_colour_png():
    rows = np.array([[[0, 257, 65535], [32896, 0, 257]]], ">u2")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = b"\x00\x00\x00\x02\x00\x00\x00\x01\x10\x02\x00\x00\x00"  # 2 x 1, 16 bits, RGB
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += chunk(b"IDAT", zlib.compress(b"\x00" + rows.tobytes())) + chunk(b"IEND", b"")
    assert read_image(data).tolist() == [[[0, 1, 255], [128, 0, 1]]]


def test_cmyk_jpeg():
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = read_image(encoded(picture, "JPEG", quality=95))
    assert found.shape == (16, 16, 3)
    assert np.abs(found.astype(int) - (255, 0, 0)).max() <= 8


def test_float_tiff():
    values = np.array([[-5, 0, 127.6, 300, np.nan]], np.float32)
    assert read_image(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 0, 128, 255, 0]


def test_exif_orientation_is_applied():
    picture = Image.fromarray(np.array([[[255, 0, 0]] * 8 + [[0, 0, 255]] * 8] * 8, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    found = read_image(encoded(picture, "JPEG", exif=exif, quality=95))
    assert found.shape == (16, 8, 3)
    assert found[0, 0].argmax() == 0
    assert found[-1, 0].argmax() == 2


def test_one_pixel():
    assert read_image(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).tolist() == [[[1, 2, 3]]]


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.png does not exist"):
        read_image(tmp_path / "none.png")


def test_a_folder_is_no_image(tmp_path):
    for read in (read_image, read_size):
        with pytest.raises(InputError, match=rf"^{tmp_path} cannot be read \(Is a directory\); check the path"):
            read(tmp_path)


def test_a_link_in_a_circle_is_not_called_damaged(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    for read in (read_image, read_size):
        with pytest.raises(InputError, match=r"a\.png cannot be read \(Too many levels of symbolic links\); check the"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x00" * 1000, b"%PDF-1.4\n"])
def test_not_an_image(tmp_path, data):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.jpg is not an image"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_truncated_files(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(InputError, match=r"the image is (damaged|not an image)"):
        read_image(data[: int(len(data) * share)])


def test_damaged_png_chunk():
    data = bytearray(encoded(Image.fromarray(RAMP), "PNG"))
    data[data.index(b"IDAT") + 6] ^= 0xFF
    with pytest.raises(InputError, match="damaged"):
        read_image(bytes(data))


def test_decompression_bomb(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match="too large"):
        read_image(encoded(Image.new("RGB", (5, 5)), "PNG"))


def test_list_images_of_a_folder(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.jpeg", "notes.txt", "d.tiff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert list_images(tmp_path) == [tmp_path / name for name in ("a.png", "b.JPG", "d.tiff", "sub/c.jpeg")]


def test_list_images_of_a_text_file(tmp_path):
    (tmp_path / "list.txt").write_text("# mine\n\n b.png \nsub/a.jpg\n/abs/c.png\n", encoding="utf-8")
    found = list_images(tmp_path / "list.txt")
    assert [str(path) for path in found] == [f"{tmp_path}/b.png", f"{tmp_path}/sub/a.jpg", "/abs/c.png"]


def test_list_images_of_nothing(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        list_images(tmp_path)
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="names no image"):
        list_images(tmp_path / "list.txt")
    with pytest.raises(InputError, match="does not exist"):
        list_images(tmp_path / "nowhere")


def test_list_images_of_one_image(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.jpg")
    assert list_images(tmp_path / "a.jpg") == [tmp_path / "a.jpg"]


def test_a_list_that_is_no_text(tmp_path):
    (tmp_path / "list.bin").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match="not a text file"):
        list_images(tmp_path / "list.bin")


# What follows was reported by users of detectors and labelling tools; each name says what they met.


def test_symlinked_subfolders_are_listed_and_loops_end(tmp_path, caplog):
    for folder in ("data/a", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "photo.jpg").touch()
    top = tmp_path / "data"
    (top / "linked").symlink_to(tmp_path / "elsewhere")
    (top / "a" / "loop").symlink_to(top)
    (top / "0 again").symlink_to(top / "a")  # sorts first, but the real folder keeps its name
    (top / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert [str(path.relative_to(top)) for path in list_images(top)] == ["a/photo.jpg", "linked/photo.jpg"]
    assert "2 a link to a folder that is listed already" in caplog.text
    assert "1 a broken link" in caplog.text


def test_what_is_hidden_is_no_picture(tmp_path, caplog):
    (tmp_path / ".thumbnails").mkdir()
    for name in ("a.jpg", "._a.jpg", ".a.x7Uq.jpg", ".thumbnails/a.jpg"):
        (tmp_path / name).touch()
    assert list_images(tmp_path) == [tmp_path / "a.jpg"]
    assert "3 hidden" in caplog.text


def test_heic_is_passed_over_with_a_word_and_jfif_is_read(tmp_path, caplog):
    (tmp_path / "a.jfif").write_bytes(encoded(Image.fromarray(RAMP), "JPEG"))
    for name in ("b.HEIC", "c.heic", "notes.txt"):
        (tmp_path / name).touch()
    assert list_images(tmp_path) == [tmp_path / "a.jfif"]
    assert read_image(tmp_path / "a.jfif").shape == (4, 4, 3)
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path}: 1 images; passed over 3 entries (2 .heic, 1 .txt)"


def test_only_heic_says_what_is_there(tmp_path):
    (tmp_path / "a.heic").touch()
    with pytest.raises(InputError, match=r"there are 1 entries \(1 \.heic\)"):
        list_images(tmp_path)


def test_nothing_is_said_where_nothing_is_passed_over(tmp_path, caplog):
    (tmp_path / "a.png").touch()
    list_images(tmp_path)
    assert not caplog.records


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_with_a_byte_order_mark_keeps_its_first_photo(tmp_path, encoding):
    (tmp_path / "list.txt").write_text("ä.jpg\r\nb.jpg\r\n", encoding=encoding)
    assert list_images(tmp_path / "list.txt") == [tmp_path / "ä.jpg", tmp_path / "b.jpg"]


def test_file_names_that_are_not_utf8_are_listed_read_and_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")  # as unpacked from an old archive
    write_image(tmp_path / name, RAMP)
    np.testing.assert_array_equal(read_image(tmp_path / name), RAMP)
    assert list_images(tmp_path) == [tmp_path / name]
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    assert list_images(tmp_path / "list.txt") == [tmp_path / name]


def test_relative_and_absolute_paths_of_one_folder_name_the_same_images(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text(f"photos/a.png\n{tmp_path}/photos/a.png\n")
    assert name_images(Path("photos")) == name_images(tmp_path / "photos") == (tmp_path / "photos", ["a.png"])
    assert name_images(Path("list.txt")) == (tmp_path, ["photos/a.png"])


def test_pictures_of_a_jpg_and_a_png_do_not_overwrite_each_other():
    names = ["a.jpg", "a.png", "below/b.png", "below_b.png", "../c.png", "a_png.bmp", "/abs/d.x.png"]
    assert picture_names(names) == [
        "a_jpg.jpg",
        "a_png.jpg",
        "below_b_png.jpg",
        "below_b_png_2.jpg",
        "c.jpg",
        "a_png_2.jpg",
        "abs_d.x.jpg",
    ]


def test_size_from_the_header_is_that_of_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 8)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("L", (20, 8)).save(tmp_path / "a.png")
    for name in ("turned.jpg", "a.png"):
        assert read_size(tmp_path / name) == read_image(tmp_path / name).shape[:2]
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"text\.jpg is not an image"):
        read_size(tmp_path / "text.jpg")
    with pytest.raises(InputError, match=r"none\.jpg does not exist"):
        read_size(tmp_path / "none.jpg")


def test_a_picture_too_long_for_its_format_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be encoded"):
        write_image(tmp_path / "a.jpg", np.zeros((1, 70_000, 3), np.uint8))


def test_a_link_that_may_not_be_followed_is_counted_and_the_rest_is_listed(tmp_path, caplog, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    class Locked:
        name = "b"

        def is_dir(self):
            raise PermissionError(13, "Permission denied")  # as /proc/1/cwd does

    scandir = os.scandir
    monkeypatch.setattr("os.scandir", lambda folder: [*scandir(folder), Locked()])
    assert [path.name for path in list_images(tmp_path)] == ["a.png"]
    assert "a link that cannot be followed (Permission denied)" in caplog.text


@pytest.mark.parametrize(
    ("size", "scale", "expected"), [((1, 300), 0.5, (1, 150)), ((7, 4), 0.01, (1, 1)), ((5, 9), 1, (5, 9))]
)
def test_shrinking_leaves_a_pixel(size, scale, expected):
    assert shrunk(np.full((*size, 3), 9, np.uint8), scale).shape == (*expected, 3)


def test_what_is_made_of_pictures_does_not_lie_among_them(tmp_path):
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        write_image(photos / name, RAMP)
    (tmp_path / "list.txt").write_text("photos/sub/b.png\n")
    for folder in (photos, photos / "drawn", tmp_path / "photos" / ".." / "photos"):
        with pytest.raises(InputError, match=r"lies in .*photos, which would be read with it the next time"):
            keep_apart(folder, photos)
    for source in (photos / "sub" / "b.png", tmp_path / "list.txt"):
        with pytest.raises(InputError, match=r"sub holds images of .*, which could be written over"):
            keep_apart(photos / "sub", source)
        keep_apart(tmp_path, source)
    keep_apart(tmp_path / "photos_drawn", photos)
