import argparse
import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from hassod_ros.discovery.features import hub, load_features
from hassod_ros.discovery.features.vit import ViTFeatures, build
from hassod_ros.errors import InputError

SMALL = "vit_small_patch8_224.dino"
TINY = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def dino_weights(shared: Path) -> dict:
    """Weights by which the reference keys were made."""
    folder = shared / "reference"
    spec = importlib.util.spec_from_file_location("named_weights", folder / "named_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = {name: tuple(shape) for name, shape in json.loads((folder / "dino_vits8_keys.json").read_text()).items()}
    return {name: torch.from_numpy(value) for name, value in module.named_weights(shapes).items()}


@pytest.fixture(scope="module")
def tiny() -> torch.nn.Module:
    """A ViT-Ti/16 of two blocks with random weights."""
    torch.manual_seed(0)
    model = timm.create_model(TINY, num_classes=0, dynamic_img_size=True, img_size=64, depth=2)
    torch.nn.init.normal_(model.pos_embed, std=0.5)
    return model


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)


def hooked(model: torch.nn.Module, images: np.ndarray, patch: int, kind: str = "k") -> np.ndarray:
    """Keys as a hook on the whole network sees them, or queries, values, tokens."""
    caught = []
    model = copy.deepcopy(model).eval()
    hook = model.blocks[-1].attn.qkv.register_forward_hook(lambda module, inputs, output: caught.append(output))
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        tokens = model.forward_features((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std)
    hook.remove()
    if kind != "tokens":
        tokens = caught[0].chunk(3, dim=2)["qkv".index(kind)]
    keys = tokens[:, model.num_prefix_tokens :].transpose(1, 2)
    return keys.reshape(len(images), -1, images.shape[1] // patch, images.shape[2] // patch).numpy()


@pytest.mark.parametrize("size", [224, 240])
def test_keys_equal_the_public_dino_code(size, shared, dino_weights, tmp_path):
    torch.save(dino_weights, tmp_path / "dino.pth")
    features = load_features(SMALL, weights=tmp_path / "dino.pth", device="cpu", precision="fp32")
    case = np.load(shared / "reference" / "dino_case.npz")
    wanted = case[f"keys_{size}"]

    keys = features(case[f"image_{size}"][None])

    assert keys.dtype == np.float32
    assert keys.shape == (1, features.dim, size // 8, size // 8)
    assert np.abs(keys[0] - wanted).max() <= 1e-3 * np.abs(wanted).max()
    assert np.linalg.norm(keys[0] - wanted) <= 1e-4 * np.linalg.norm(wanted)


def test_sizes_may_alternate(tiny, image):
    features = ViTFeatures(copy.deepcopy(tiny), name="tiny")
    square = image[:, :, :64]

    first = features(square)
    features(image)

    np.testing.assert_array_equal(features(square), first)
    np.testing.assert_allclose(first, hooked(tiny, square, 16), atol=1e-4)


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2.lvd142m", "vit_small_patch16_dinov3.lvd1689m", TINY])
def test_last_block_is_cut_without_changing_the_keys(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, dynamic_img_size=True, depth=2)
    patch, side = model.patch_embed.patch_size[0], model.patch_embed.grid_size[0]
    images = np.random.default_rng(1).integers(0, 256, (1, side * patch, side * patch, 3), dtype=np.uint8)
    wanted = hooked(model, images, patch)

    keys = ViTFeatures(model, name=name)(images)

    assert keys.shape == (1, 384 if "small" in name else 192, side, side)
    np.testing.assert_allclose(keys, wanted, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("name", "patch", "prefix"),
    [
        ("vit_small_patch16_224.dino", 16, 1),
        ("vit_small_patch14_dinov2.lvd142m", 14, 1),
        ("vit_small_patch14_reg4_dinov2.lvd142m", 14, 5),
        ("vit_small_patch16_dinov3.lvd1689m", 16, 5),
    ],
)
@pytest.mark.parametrize("kind", ["q", "v", "tokens"])
def test_queries_values_and_tokens_are_those_of_the_whole_network(name, patch, prefix, kind):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, dynamic_img_size=True, depth=2, img_size=4 * patch)
    images = np.random.default_rng(1).integers(0, 256, (1, 4 * patch, 4 * patch, 3), dtype=np.uint8)
    wanted = hooked(model, images, patch, kind)
    assert model.num_prefix_tokens == prefix  # class token and registers, which have no place

    found = ViTFeatures(model, name=name, kind=kind)(images)

    assert found.shape == (1, 384, 4, 4)
    np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(wanted).max())


def test_a_kind_stands_behind_the_name_and_another_one_is_refused(tmp_path, tiny, image):
    torch.save(timm.create_model(TINY, num_classes=0).state_dict(), tmp_path / "tiny.pth")
    keys, values = (load_features(f"{TINY}{kind}", tmp_path / "tiny.pth", "cpu", "fp32") for kind in ("", ":v"))
    assert (keys.name, values.name, values.dim) == (TINY, f"{TINY}:v", keys.dim)
    assert np.abs(keys(image) - values(image)).max() > 0.01
    with pytest.raises(InputError, match="a ViT gives q, k, v, tokens, not 'x'"):
        load_features(f"{TINY}:x", tmp_path / "tiny.pth")


def test_batch_equals_single_images(tiny):
    images = np.random.default_rng(2).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    features = ViTFeatures(copy.deepcopy(tiny), name="tiny")
    np.testing.assert_allclose(features(images)[1:2], features(images[1:2]), atol=1e-4)


def test_bf16_stays_near_fp32(tiny, image):
    exact = ViTFeatures(copy.deepcopy(tiny), name="tiny", precision="fp32")(image)[0]
    rough = ViTFeatures(copy.deepcopy(tiny), name="tiny", precision="bf16")(image)[0]
    cosine = (exact * rough).sum(0) / (np.linalg.norm(exact, axis=0) * np.linalg.norm(rough, axis=0))
    assert rough.dtype == np.float32
    assert 0.999 < cosine.min() < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_equals_cpu(tiny, image):
    on_cpu = ViTFeatures(copy.deepcopy(tiny), name="tiny")(image)
    np.testing.assert_allclose(ViTFeatures(copy.deepcopy(tiny), name="tiny", device="cuda")(image), on_cpu, atol=1e-2)


def wrap_plain(weights):
    return weights


def wrap_backbone(weights):
    return {f"module.backbone.{key}": value for key, value in weights.items()} | {"module.head.weight": torch.ones(2)}


def wrap_full_checkpoint(weights):
    student = {key: value + 1 for key, value in weights.items()}
    return {"student": student, "teacher": wrap_backbone(weights), "epoch": 3, "args": argparse.Namespace(lr=0.1)}


@pytest.mark.parametrize("wrap", [wrap_plain, wrap_backbone, wrap_full_checkpoint])
def test_weights_are_found_in_what_training_writes(wrap, tmp_path):
    state = build(TINY, pretrained=False).state_dict()
    torch.save(wrap(state), tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")

    features = load_features(TINY, weights=tmp_path / "w.pth", device="cpu", precision="fp32")

    other = load_features(TINY, weights=tmp_path / "w.safetensors", device="cpu", precision="fp32")
    assert features.weights_sha256 == other.weights_sha256
    assert len(features.weights_sha256) == 64
    assert (features.patch_size, features.dim, features.name) == (16, 192, TINY)


def test_official_dinov2_names_are_understood(tmp_path):
    name = "vit_small_patch14_reg4_dinov2.lvd142m"
    model = build(name, pretrained=False)
    state = model.state_dict()
    official = {key: value for key, value in state.items() if key not in ("reg_token", "pos_embed")}
    official["register_tokens"], official["mask_token"] = state["reg_token"], torch.zeros(1, 384)
    official["pos_embed"] = torch.cat([torch.zeros(1, 1, 384), state["pos_embed"]], dim=1)
    torch.save(official, tmp_path / "dinov2.pth")

    features = load_features(name, weights=tmp_path / "dinov2.pth", device="cpu", precision="fp32")

    assert features.weights_sha256 == ViTFeatures(model, name=name).weights_sha256
    torch.save(official | {"patch_embed.proj.weight": torch.zeros(384, 3, 16, 16)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"patch_embed.proj.weight has shape"):
        load_features(name, weights=tmp_path / "other.pth")


def test_weights_of_another_architecture_name_what_does_not_fit(tmp_path):
    torch.save(build(SMALL, pretrained=False).state_dict(), tmp_path / "small.pth")
    with pytest.raises(InputError, match=r"cls_token has shape \(1, 1, 384\), not \(1, 1, 192\).*name the model"):
        load_features(TINY, weights=tmp_path / "small.pth")
    with pytest.raises(InputError, match=r"patch_embed.proj.weight has shape \(384, 3, 8, 8\), not \(384, 3, 16, 16\)"):
        load_features("vit_small_patch16_224.dino", weights=tmp_path / "small.pth")
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    with pytest.raises(InputError, match="cls_token is missing"):
        load_features(SMALL, weights=tmp_path / "resnet.pth")


class Evil:
    def __reduce__(self):
        return (sys.exit, (3,))


@pytest.mark.parametrize(
    ("content", "message"),
    [(Evil(), "more than weights"), ([1, 2], "a list, not named weights"), (b"garbage", "damaged|more than weights")],
)
def test_files_that_hold_no_weights(content, message, tmp_path):
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=message):
        load_features(SMALL, weights=path)


def test_truncated_and_missing_files(tmp_path):
    with pytest.raises(InputError, match="do not exist"):
        load_features(SMALL, weights=tmp_path / "none.pth")
    save_file({"a": torch.zeros(100)}, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:100])
    torch.save({"a": torch.zeros(100)}, tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:300])
    for name in ("w.safetensors", "w.pth"):
        with pytest.raises(InputError, match=name):
            load_features(SMALL, weights=tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vit_base_patch9"}, "knows no model 'vit_base_patch9'"),
        ({"name": "resnet18"}, "resnet18 is not a ViT"),
        ({"name": SMALL, "precision": "fp8"}, "precision must be one of bf16, fp32"),
        ({"name": SMALL, "device": "tpu9"}, "not a device"),
        ({"name": "handcrafted", "weights": "x.pth"}, "have no weights"),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(InputError, match=message):
        load_features(**arguments)


def test_without_network_the_remedy_is_named(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"could not be downloaded.*--weights"):
        load_features("vit_tiny_patch16_224.augreg_in21k")


def test_a_hub_that_does_not_answer_is_not_asked_again_and_again(monkeypatch, tmp_path):
    import huggingface_hub.constants

    def unreachable(*_: object) -> None:
        raise OSError("no route")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(hub.socket, "create_connection", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match=r"huggingface\.co does not answer and they are not in its cache"):
        load_features("vit_tiny_patch16_224.augreg_in21k")
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_nan_weights_are_an_error(tiny, image):
    broken = copy.deepcopy(tiny)
    broken.blocks[0].attn.qkv.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        ViTFeatures(broken, name="tiny")(image)


@pytest.mark.parametrize("name", ["handcrafted", "tiny"])
def test_images_must_divide_into_patches(name, tiny):
    features = load_features(name) if name == "handcrafted" else ViTFeatures(copy.deepcopy(tiny), name="tiny")
    with pytest.raises(InputError, match="do not divide into patches"):
        features(np.zeros((1, 60, 64, 3), np.uint8))
    with pytest.raises(InputError, match="uint8"):
        features(np.zeros((1, 64, 64, 3), np.float32))


def test_handcrafted_needs_no_torch():
    code = (
        "import sys, numpy as np; from hassod_ros.discovery.features import load_features;"
        "print(load_features('handcrafted')(np.zeros((1, 16, 24, 3), np.uint8)).shape, 'torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "(1, 288, 2, 3) False"
