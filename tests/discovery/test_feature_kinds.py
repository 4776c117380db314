"""HEAP and LightCluster on queries, keys, values and tokens of a ViT with registers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hassod_ros.discovery.features import load_features
from hassod_ros.discovery.features.tiny import TinyViT, build_tiny, save_tiny
from hassod_ros.discovery.features.vit import KINDS
from hassod_ros.discovery.method import make_method
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
