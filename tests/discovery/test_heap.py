import numpy as np
import pytest
import torch

from hassod_ros.discovery.features import load_features
from hassod_ros.discovery.heap import Heap, HeapConfig, NumpyHead
from hassod_ros.discovery.heap_head.cache import FeatureCache
from hassod_ros.discovery.heap_head.config import HeadConfig
from hassod_ros.discovery.heap_head.contrast import contrast_loss
from hassod_ros.discovery.heap_head.inter_image import inter_image_loss
from hassod_ros.discovery.heap_head.intra_image import modularity_loss
from hassod_ros.discovery.heap_head.network import Head
from hassod_ros.discovery.heap_head.training import _check_collapse, train_head
from hassod_ros.discovery.method import change, make_method, open_learner
from hassod_ros.discovery.regions import on_the_border, unlike_border
from hassod_ros.discovery.states import save_state
from hassod_ros.errors import InputError
from tests.discovery.toy_squares import Colours, scene

SMALL = {"size": 96, "crf": None, "classes": 3, "filters.min_area": 20, "head.iterations": 60, "head.tokens": 4}


def unit_rows(*shape: int, seed: int = 0) -> torch.Tensor:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))
    return torch.nn.functional.normalize(values, dim=-1)


def test_modularity_is_networkx_own():
    networkx = pytest.importorskip("networkx")
    features = unit_rows(1, 20, 3)
    labels = torch.arange(20) % 3
    edges = torch.relu(features[0] @ features[0].T).double().numpy()
    graph = networkx.from_numpy_array(edges)
    for i in range(20):  # networkx counts a loop twice in a degree, the loss once
        graph[i][i]["weight"] /= 2
    groups = [set(torch.where(labels == k)[0].tolist()) for k in range(3)]
    wanted = networkx.community.modularity(graph, groups)
    found = -modularity_loss(features, torch.nn.functional.one_hot(labels, 3).float()[None])
    assert float(found) == pytest.approx(wanted, abs=1e-5)


def test_contrast_by_hand():
    foreground, background = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[0.6, 0.8], [-1, 0]])
    wanted = -np.log(1 - np.array([0.6, 0.0005, 0.8, 0.0005])).mean()
    assert float(contrast_loss(foreground, background)) == pytest.approx(wanted, rel=1e-4)


def test_inter_image_pairs_are_of_different_images_and_ranked():
    regions = torch.tensor([[1.0, 0], [0.8, 0.6], [0.6, 0.8]])
    images = torch.tensor([0, 1, 1])
    # Region 0 ranks 1 (0.8) before 2 (0.6); 1 and 2 know only region 0.
    fade = np.exp(-0.25)
    wanted = -(np.log(0.8) + fade * np.log(0.6) + np.log(0.8) + np.log(0.6)) / 4
    assert float(inter_image_loss(regions, images)) == pytest.approx(wanted, rel=1e-5)
    assert float(inter_image_loss(regions, torch.zeros(3))) == 0


@pytest.mark.parametrize("grid", [(5, 7), (2, 2)])
def test_the_head_without_torch_is_the_head(grid):
    torch.manual_seed(1)
    head = Head(24, tokens=5)
    with torch.no_grad():
        head.look.normal_()
        head.bias.fill_(0.3)
    features, border = unit_rows(2, grid[0] * grid[1], 24), on_the_border(grid).ravel()
    with torch.no_grad():
        wanted = head(features, torch.from_numpy(border))
    arrays = {f"head.{name}": value.detach().numpy() for name, value in head.state_dict().items()}
    for i in range(2):
        found = NumpyHead(arrays, HeadConfig(tokens=5))(features[i].numpy(), border)
        for one, other in zip(
            found, (wanted.assignment, wanted.groups, wanted.scores, wanted.odds, wanted.sizes), strict=True
        ):
            np.testing.assert_allclose(one, other[i].numpy(), atol=2e-5)
    hard = head(features, torch.from_numpy(border), hard=True).assignment
    assert set(hard.detach().round(decimals=4).unique().tolist()) == {0.0, 1.0}
    with pytest.raises(InputError, match="the state of heap has no"):
        NumpyHead({}, HeadConfig())


def test_of_groups_that_are_all_alike_a_patch_counts_by_itself():
    features, border = unit_rows(1, 30, 8), on_the_border((5, 6)).ravel()
    head = Head(8, tokens=3)
    with torch.no_grad():
        head.tokens[:] = 1.0
        odds = head(features, torch.from_numpy(border)).odds[0]
    np.testing.assert_allclose(odds, unlike_border(features[0].numpy(), border), atol=1e-5)


def test_rounds_fit_groups_to_the_image_whatever_the_tokens_are():
    """As k-means ends: each patch is in the group whose mean it is most like."""
    features = unit_rows(1, 60, 8)
    own, cohesion = {}, {}
    for rounds in (0, 40):
        torch.manual_seed(0)
        with torch.no_grad():
            grouped = Head(8, tokens=4, temperature=0.05, rounds=rounds)(features, torch.arange(10))
        chosen = grouped.assignment[0].argmax(dim=1)
        alike = features[0] @ grouped.groups[0].T
        own[rounds] = float((alike.argmax(dim=1) == chosen).float().mean())
        cohesion[rounds] = float(alike.gather(1, chosen[:, None]).mean())
    assert own[0] < own[40] == 1.0
    assert cohesion[40] > cohesion[0]


@pytest.fixture(scope="module")
def learned():
    made = make_method("heap", SMALL)
    return made.fit((made.prepare(scene(seed)[0], 8) for seed in range(24)), Colours())


def test_objects_of_new_images_are_found_and_regions_mean_the_same_across_images(learned, tmp_path):
    save_state(tmp_path / "heap.npz", learned)
    made, state = open_learner("heap", tmp_path / "heap.npz")
    assert made.config == change(HeapConfig(), SMALL)
    clusters: dict[int, set[int]] = {}
    for seed in range(100, 106):
        image, mask = scene(seed)
        (found,) = made.partition([made.prepare(image, 8)], Colours(), state)
        chosen = made.foreground(image, found) >= 0.5
        assert (chosen & mask).sum() / (chosen | mask).sum() > 0.8
        instances = made.masks(image, found)
        assert (instances.dense()[0] & mask).sum() / (instances.dense()[0] | mask).sum() > 0.8
        assert instances.levels[0] == 0
        patch = tuple(np.argwhere(mask).mean(axis=0).astype(int) // 8)
        clusters.setdefault(seed % 2, set()).add(int(found.clusters[found.labels[patch]]))
    assert all(len(each) == 1 for each in clusters.values())
    assert clusters[0] != clusters[1]
    with pytest.raises(
        InputError, match=r"made with colours \(4 channels, weights c\), these features are handcrafted"
    ):
        made.partition([made.prepare(scene(0)[0], 8)], load_features("handcrafted"), state)
    with pytest.raises(InputError, match=r"made with head"):
        open_learner("heap", tmp_path / "heap.npz", {"head.tokens": 5})


def toy_vectors(count: int = 12) -> np.ndarray:
    made = Heap(change(HeapConfig(), SMALL))
    samples = [made.sample([made.prepare(scene(seed)[0], 8)], Colours())[0] for seed in range(count)]
    vectors = np.stack([sample.reshape(4, -1).T for sample in samples]).astype(np.float32)
    return (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float16)


def test_a_stopped_training_goes_on_exactly(tmp_path, monkeypatch):
    vectors, border = toy_vectors(), on_the_border((12, 12)).ravel()
    config = HeadConfig(tokens=4, iterations=20, every=5, batch=4)
    whole = train_head(vectors, border, config).state_dict()

    def stop(iteration: int, means: dict[str, float], head: Head) -> None:
        if iteration == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # after the checkpoint of iteration 10
        train_head(vectors, border, config, checkpoint=tmp_path / "c.pt", report=stop)
    seen: list[int] = []
    resumed = train_head(
        vectors, border, config, checkpoint=tmp_path / "c.pt", report=lambda i, means, head: seen.append(i)
    )
    assert seen == [15, 20]
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole[name]), name
    with pytest.raises(InputError, match="belongs to a run with other config"):
        train_head(vectors, border, HeadConfig(tokens=5), checkpoint=tmp_path / "c.pt")
    (tmp_path / "c.pt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="no checkpoint of this program"):
        train_head(vectors, border, config, checkpoint=tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("means", "fault"),
    [
        ({"groups": 1.0, "foreground": 0.3, "border": 0.1}, "uses 1.0 groups"),
        ({"groups": 4.0, "foreground": 0.99, "border": 0.9}, "calls 99% of an image foreground"),
        ({"groups": 4.0, "foreground": 0.001, "border": 0.0}, "calls 0% of an image foreground"),
        ({"groups": 4.0, "foreground": 0.3, "border": 0.6}, "calls 60% of the border foreground"),
    ],
)
def test_a_collapsed_head_ends_the_run_with_a_sentence(means, fault):
    with pytest.raises(InputError, match=f"the head has collapsed: it {fault}"):
        _check_collapse(means)
    _check_collapse({"groups": 4.0, "foreground": 0.3, "border": 0.1})


def test_sets_that_teach_nothing():
    made = make_method("heap", SMALL)
    one = made.prepare(scene(0)[0], 8)
    with pytest.raises(InputError, match="at least 2, got 1"):
        made.fit([one], Colours())
    with pytest.raises(InputError, match="all look the same"):
        made.fit([one] * 3, Colours())
    with pytest.raises(InputError, match="no image to fit"):
        made.fit([], Colours())
    with pytest.raises(InputError, match="hold NaN or infinity"):
        made.learn([np.full((4, 6, 6), np.nan, np.float16)] * 2, {})
    with pytest.raises(InputError, match="needs a trained head"):
        made.partition([one], Colours(), None)


def test_learning_shows_how_far_it_is(capfd):
    made = make_method("heap", SMALL | {"head.iterations": 2, "head.every": 1})
    made.fit((made.prepare(scene(seed)[0], 8) for seed in range(4)), Colours())
    assert "head: 100%" in (printed := capfd.readouterr().err)
    assert "2/2 [" in printed


def test_a_cache_goes_on_and_belongs_to_its_images(tmp_path):
    path, shape = tmp_path / "features.npy", (3, 4, 2)
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    cache = FeatureCache(path, {"images": ["a"]}, shape)
    with pytest.raises(InputError, match="NaN"):
        cache.fill([np.full((4, 2), np.nan)])
    cache.fill(rows)
    again = FeatureCache(path, {"images": ["a"]}, shape)
    assert again.done == 3
    np.testing.assert_array_equal(again.vectors, rows.astype(np.float16))
    with pytest.raises(InputError, match="of other images or settings"):
        FeatureCache(path, {"images": ["b"]}, shape)
