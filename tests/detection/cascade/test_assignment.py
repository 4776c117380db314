import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from hassod_ros.detection.cascade.assignment import IGNORED, NEGATIVE, POSITIVE, match, sample


def test_thresholds():
    iou = torch.tensor([[0.29, 0.3, 0.69, 0.7, 0.0], [0.1, 0.2, 0.1, 0.8, 0.0]])
    index, label = match(iou, 0.3, 0.7)
    assert index.tolist() == [0, 0, 0, 1, 0]
    assert label.tolist() == [NEGATIVE, IGNORED, IGNORED, POSITIVE, NEGATIVE]


def test_low_quality_matches_leave_no_object_alone():
    iou = torch.tensor([[0.1, 0.2, 0.2, 0.0], [0.8, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    index, label = match(iou, 0.3, 0.7, low_quality=True)
    assert label.tolist() == [POSITIVE, POSITIVE, POSITIVE, NEGATIVE]
    assert index.tolist()[:3] == [1, 0, 0]


def test_no_objects():
    index, label = match(torch.zeros(0, 3), 0.3, 0.7, low_quality=True)
    assert index.tolist() == label.tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_equals_torchvisions_matcher(seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(305, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + 1 + torch.rand(305, 2, generator=generator) * 50], dim=1)
    iou = box_iou(boxes[:5], boxes[5:])
    index, label = match(iou, 0.3, 0.7, low_quality=True)
    expected = Matcher(0.7, 0.3, allow_low_quality_matches=True)(iou)
    assert torch.equal(label == POSITIVE, expected >= 0)
    assert torch.equal(label == NEGATIVE, expected == Matcher.BELOW_LOW_THRESHOLD)
    assert torch.equal(index[label == POSITIVE], expected[expected >= 0])


@pytest.mark.parametrize(
    ("positives", "negatives", "drawn"), [(50, 50, (5, 5)), (2, 50, (2, 8)), (50, 3, (5, 3)), (0, 4, (0, 4))]
)
def test_sample_counts(positives, negatives, drawn):
    label = torch.tensor([POSITIVE] * positives + [NEGATIVE] * negatives + [IGNORED] * 7)
    places, drawn_places = sample(torch.stack([label, label.flip(0)]), 10, 0.5)
    for row, place, chosen in zip((label, label.flip(0)), places, drawn_places, strict=True):
        found = row[place[chosen]]
        assert ((found == POSITIVE).sum(), (found == NEGATIVE).sum(), len(found)) == (*drawn, sum(drawn))
        assert found.tolist() == sorted(found.tolist(), reverse=True)  # positive ones first
        assert len(place[chosen].unique()) == len(found)


def test_sample_is_fair():
    label = torch.tensor([[POSITIVE] * 4 + [NEGATIVE] * 8])
    torch.manual_seed(0)
    counts = torch.zeros(12)
    for _ in range(400):
        places, drawn = sample(label, 4, 0.5)
        counts[places[drawn]] += 1
    assert counts[:4].sum() == counts[4:].sum() == 800
    assert (counts[:4] - 200).abs().max() < 60  # four standard deviations
    assert (counts[4:] - 100).abs().max() < 40


def test_sample_follows_the_seed():
    label = torch.tensor([[POSITIVE, NEGATIVE] * 100])
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(sample(label, 10, 0.5)[0].tolist())
    assert draws[0] == draws[1] != draws[2]
