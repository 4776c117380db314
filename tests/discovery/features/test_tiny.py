"""The small ViT as a file, and extractors joined to one."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hassod_ros.discovery.features import load_features, tiny
from hassod_ros.discovery.features.joined import JoinedFeatures
from hassod_ros.discovery.features.tiny import TinyViT, build_tiny, centre_keys, read_tiny, save_tiny
from hassod_ros.discovery.features.vit import ViTFeatures
from hassod_ros.errors import InputError

SMALL = TinyViT(patch_size=8, width=24, depth=2, heads=3, registers=2, image_size=32)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_tiny(SMALL).eval()


@pytest.fixture
def file(model, tmp_path):
    save_tiny(model, SMALL, tmp_path / "features.safetensors", {"photographs": 3})
    return tmp_path / "features.safetensors"


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)


def test_a_file_gives_back_what_was_saved(model, file, images):
    read, facts = read_tiny(file)
    assert facts == {"photographs": 3}
    for name, value in model.state_dict().items():
        assert torch.equal(read.state_dict()[name], value.half().float()), name
    features = load_features("tiny", weights=file, device="cpu", precision="fp32")
    assert (features.name, features.patch_size, features.dim) == ("tiny", 8, 24)
    keys = features(images)
    assert keys.shape == (2, 24, 6, 8)
    wanted = ViTFeatures(build_filled(model), name="tiny")(images)
    np.testing.assert_allclose(keys, wanted, atol=0.02 * np.abs(wanted).max())


def build_filled(model: torch.nn.Module) -> torch.nn.Module:
    copy = build_tiny(SMALL)
    copy.load_state_dict(model.state_dict())
    return copy


def test_equal_weights_give_equal_files(model, file, tmp_path):
    save_tiny(model, SMALL, tmp_path / "again.safetensors", {"photographs": 3})
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_the_default_size_fits_into_the_package(tmp_path):
    save_tiny(build_tiny(TinyViT(depth=12)), TinyViT(depth=12), tmp_path / "f.safetensors", {})
    assert (tmp_path / "f.safetensors").stat().st_size < 12_000_000
    large = TinyViT(depth=14)
    with pytest.raises(InputError, match=r"would hold 12\.\d MB, at most 12 are shipped"):
        save_tiny(build_tiny(large), large, tmp_path / "large.safetensors", {})
    assert not (tmp_path / "large.safetensors").exists()


def test_centred_keys_have_no_mean_and_the_network_is_the_same(model, images):
    moved = build_filled(model)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        before = moved.forward_features(pixels)
        centre_keys(moved, torch.from_numpy(images))
        after = moved.forward_features(pixels)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    keys, old = (ViTFeatures(build_filled(each), name="tiny")(images) for each in (moved, model))
    assert np.abs(old.mean((0, 2, 3))).max() > 0.01
    np.testing.assert_allclose(keys.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(keys - old, np.broadcast_to((keys - old)[:1, :, :1, :1], keys.shape), atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (TinyViT(width=100, heads=3), "width 100 of the ViT is no multiple of its heads 3"),
        (TinyViT(image_size=100), "image_size 100 of the ViT is no multiple of its patch_size 8"),
        (TinyViT(heads=0), "heads 0"),
        (TinyViT(depth=0), "at least 1 block"),
    ],
)
def test_impossible_architectures(architecture, message):
    with pytest.raises(InputError, match=message):
        build_tiny(architecture)


def test_what_is_wrong_with_a_file_is_said(model, file, tmp_path):
    with pytest.raises(InputError, match=r"none\.safetensors do not exist; make them with train/pretrain_features\.py"):
        load_features("tiny", weights=tmp_path / "none.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="is damaged or no safetensors file"):
        load_features("tiny", weights=file)
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="was not written by this version's pretrain_features"):
        load_features("tiny", weights=tmp_path / "other.safetensors")
    metadata = {"schema": tiny.SCHEMA, "architecture": vars(SMALL), "facts": {}}
    save_file({"a": torch.zeros(3)}, tmp_path / "bare.safetensors", metadata={tiny.METADATA_KEY: json.dumps(metadata)})
    with pytest.raises(InputError, match="does not hold the weights of the ViT that it names"):
        load_features("tiny", weights=tmp_path / "bare.safetensors")


def test_without_a_shipped_file_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tiny, "SHIPPED", tmp_path / "tiny_features.safetensors")
    with pytest.raises(InputError, match=r"tiny_features\.safetensors do not exist; .* or use handcrafted"):
        load_features("tiny", device="cpu")


def test_joined_features_weigh_the_same(file, images):
    both = load_features("tiny+handcrafted", weights=file, device="cpu", precision="fp32")
    parts = [load_features("tiny", weights=file, device="cpu", precision="fp32"), load_features("handcrafted")]
    assert (both.name, both.patch_size, both.dim, both.precision) == ("tiny+handcrafted", 8, 24 + 288, "fp32")
    joined = both(images)
    assert joined.dtype == np.float32
    for part, channels in zip(parts, (slice(0, 24), slice(24, None)), strict=True):
        alone = part(images)
        lengths = np.linalg.norm(joined[:, channels], axis=1)
        np.testing.assert_allclose((lengths**2).mean((1, 2)), 1, rtol=1e-4)
        ratio = joined[:, channels] / alone
        np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1, :1], ratio.shape), rtol=1e-3)
    assert both.weights_sha256 != load_features("handcrafted+tiny", weights=file, device="cpu").weights_sha256


def test_joined_features_of_an_even_image_are_finite():
    grey = np.full((1, 16, 16, 3), 128, np.uint8)
    assert np.isfinite(load_features("handcrafted+handcrafted")(grey)).all()


def test_what_cannot_be_joined(model, file):
    with pytest.raises(InputError, match=r"x\.pth could belong to any of tiny\+vit_tiny_patch16_224"):
        load_features("tiny+vit_tiny_patch16_224", weights="x.pth")
    with pytest.raises(InputError, match="could belong to any of handcrafted"):
        load_features("handcrafted+handcrafted", weights="x.pth")
    with pytest.raises(InputError, match="knows no model ''"):
        load_features("handcrafted+")
    coarse = ViTFeatures(build_tiny(TinyViT(patch_size=16, width=24, depth=1, image_size=32)), name="coarse")
    with pytest.raises(InputError, match=r"patch sizes differ \(handcrafted: 8, coarse: 16\)"):
        JoinedFeatures([load_features("handcrafted"), coarse])


def test_joining_handcrafted_features_needs_no_torch():
    code = (
        "import sys, numpy as np; from hassod_ros.discovery.features import load_features;"
        "f = load_features('handcrafted+handcrafted');"
        "print(f(np.zeros((1, 16, 24, 3), np.uint8)).shape, 'torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "(1, 576, 2, 3) False"
