"""Methods on queries, keys, values and tokens of a ViT with registers, and what kinds of features ask of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hassod_ros.discovery.features import load_features, suited_options
from hassod_ros.discovery.features.base import Features
from hassod_ros.discovery.features.tiny import TinyViT, build_tiny, save_tiny
from hassod_ros.discovery.features.vit import KINDS
from hassod_ros.discovery.method import instances_of, make_method
from hassod_ros.discovery.sohes import SohesConfig
from hassod_ros.errors import InputError
from tests.discovery.toy_squares import scene

NETWORK = TinyViT(width=48, depth=1, heads=3, registers=4, image_size=96)
SMALL = {
    "heap": {"head.iterations": 30, "head.tokens": 4, "classes": 3},
    "lightcluster": {
        "dataset_clusters": 8,
        "categories": 2,
        "category_clusters": 6,
        "image_clusters": 3,
        "classes": 2,
    },
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "features.safetensors"
    save_tiny(build_tiny(NETWORK), NETWORK, path, {})
    return path


@pytest.mark.parametrize("name", SMALL)
def test_every_kind_serves_and_a_state_belongs_to_its_kind(name, weights):
    made = make_method(name, {"size": 96, "crf": None, "filters.min_area": 20, **SMALL[name]})
    pictures = [made.prepare(scene(seed)[0], 8) for seed in range(12)]
    states = {}
    for kind in KINDS:
        features = load_features(f"tiny:{kind}", weights, "cpu", "fp32")
        states[kind] = made.fit(pictures, features)
        image, mask = scene(100)
        (found,) = made.partition([made.prepare(image, 8)], features, states[kind])
        assert found.embeddings.shape[1] == NETWORK.width
        chosen = made.foreground(image, found) >= 0.5
        assert (chosen & mask).sum() / (chosen | mask).sum() > 0.6, kind
    with pytest.raises(InputError, match="made with tiny:tokens"):
        made.partition([pictures[0]], load_features("tiny:v", weights, "cpu", "fp32"), states["tokens"])
    assert not np.allclose(states["q"].arrays["class_centres"][0], states["v"].arrays["class_centres"][0])


class Shared:
    """The features of a network, and the same large vector in all patches."""

    name, dim, weights_sha256, patch_size = "shared", NETWORK.width, "0", 8

    def __init__(self, features: Features, much: float) -> None:
        self.features, self.much = features, np.float32(much)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.features(images) + self.much


@pytest.mark.parametrize("name", ["hassod", "sohes"])
def test_what_all_patches_share_does_not_merge_them_where_it_is_taken_out(name, weights):
    features, (image, square) = load_features("tiny", weights, "cpu", "fp32"), scene(100)
    options = {"size": 96, "crf": None, "filters.min_area": 20} | ({"tiles": []} if name == "sohes" else {})

    def best(much: float, more: dict) -> float:
        found = instances_of(image, make_method(name, options | more), Shared(features, much))
        dense = found.dense() > 0
        return float(((dense & square).sum((1, 2)) / (dense | square).sum((1, 2))).max(initial=0))

    assert best(10, {}) < 0.3
    assert best(10, {"centring": 1.0}) > 0.9
    assert best(0, suited_options("tiny")) > 0.9


def test_each_kind_has_options_that_suit_it():
    assert suited_options("vit_base_patch8_224.dino") == {}
    assert (
        suited_options("tiny:v")
        == suited_options("tiny+handcrafted")
        == {
            **suited_options("handcrafted"),
            "centring": 0.9,
        }
    )
    assert suited_options("tiny+vit_base_patch8_224.dino") == {}


def test_sohes_looks_at_small_tiles_with_tiny_features_only():
    """Their patches cost less together than those of the usual tiles, where each counts all others of its view."""

    def pairs(tiles) -> int:
        return sum((n * (px // 8) ** 2) ** 2 for n, px in tiles)  # n x n tiles, each (px / 8)^4

    for name in ("tiny", "tiny:q", "tiny+handcrafted"):
        options = suited_options(name, "sohes")
        tiles = make_method("sohes", options).config.tiles
        assert pairs(tiles) < pairs(SohesConfig().tiles) / 4
        assert options == {**suited_options(name), "tiles": options["tiles"]}
    assert suited_options("handcrafted", "sohes") == suited_options("handcrafted")
    assert suited_options("vit_base_patch8_224.dino", "sohes") == {}
