import copy

import numpy as np
import torch

from hassod_ros.detection.mask2former.found import extents
from hassod_ros.detection.mask2former.static_graph import GatheredAttention, StaticMask2Former


def test_samples_are_those_of_grid_sampling(mask2former):
    """The library's layer, which samples with grid_sample, is the oracle; some samples lie outside the maps."""
    layer = copy.deepcopy(mask2former.body.pixel_decoder.encoder.layers[0].self_attn)
    torch.manual_seed(0)
    torch.nn.init.normal_(layer.sampling_offsets.bias, std=4)
    torch.nn.init.normal_(layer.sampling_offsets.weight, std=0.3)
    torch.nn.init.normal_(layer.attention_weights.weight, std=0.3)
    shapes = [(2, 3), (4, 6), (8, 12)]
    count = sum(height * width for height, width in shapes)
    tokens, places = torch.randn(2, count, 32), torch.randn(2, count, 32)
    points = torch.rand(2, count, 3, 2)
    given = {
        "hidden_states": tokens,
        "attention_mask": torch.zeros(2, count, dtype=torch.bool),
        "encoder_hidden_states": tokens,
        "position_embeddings": places,
        "reference_points": points,
        "spatial_shapes_list": shapes,
        "level_start_index": None,
    }
    with torch.no_grad():
        wanted, _ = layer(**given)
        found, _ = GatheredAttention(layer)(**given)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_batch_is_what_the_detector_finds(mask2former):
    model = copy.deepcopy(mask2former).eval()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8))
    static = StaticMask2Former(model, batch=2, input_size=(64, 96))
    with torch.no_grad():
        boxes, scores, levels, masks, counts, _, _, ancestors = static(images)
        found = model(images.permute(0, 3, 1, 2).float())
    assert counts.tolist() == [len(each) for each in found]
    assert levels.shape == (2, 12, 3)
    for i, each in enumerate(found):
        n = len(each)
        torch.testing.assert_close(scores[i, :n], each.scores)
        torch.testing.assert_close(masks[i, :n], each.masks)
        torch.testing.assert_close(ancestors[i, :n, :n], each.ancestors, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(boxes[i, :n], 4 * extents(each.masks > 0.5))


def test_extents_are_those_of_the_pixels():
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0, 1:3, 2:6] = True
    masks[1] = True
    assert extents(masks).tolist() == [[2, 1, 6, 3], [0, 0, 7, 5], [0, 0, 0, 0]]
