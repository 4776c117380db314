"""HEAP: objects and their regions from group tokens that a light head has learned on frozen features.

After Zhang, Xie, Yuan, Mi, Tan, "HEAP: Unsupervised Object Discovery and Localization with Contrastive Grouping" (AAAI
2024); see `heap_head` for what is the paper's and what is chosen by us. A trained head runs in NumPy, without torch.

patch -> region: each patch belongs to the group whose token it is most like. region -> image: each group has a
foreground score; connected foreground is a whole, the groups inside it are its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import erf, expit, softmax

from hassod_ros.discovery.crf.config import PAPER, CRFConfig
from hassod_ros.discovery.crf.config import Method as CRFMethod
from hassod_ros.discovery.features.base import Features
from hassod_ros.discovery.filters import FilterConfig
from hassod_ros.discovery.hassod import HassodConfig
from hassod_ros.discovery.heap_head.config import HeadConfig
from hassod_ros.discovery.lightcluster import cluster, nearest
from hassod_ros.discovery.patch_learner import PatchLearner, finite_features
from hassod_ros.discovery.regions import Regions, foreground_of, on_the_border, unit, unlike_border, vectors_of
from hassod_ros.discovery.reliability import explained
from hassod_ros.discovery.states import State, describe
from hassod_ros.errors import InputError

if TYPE_CHECKING:
    from hassod_ros.discovery.heap_head.network import Head

NAME = "heap"
_HEAD = "head."  # before the names of the head's arrays in a state
_EPS = 1e-6
_USED = 0.01  # share of the patches from which a group is a region


@dataclass(frozen=True)
class HeapConfig:
    """Settings of HEAP; chosen by us, the paper's are not public.

    Raises:
        InputError: A value is out of its range.

    """

    size: int = 480  # side of the square that an image is resized to, px
    keep_aspect: bool = False  # instead a rectangle of the image's shape with as many pixels
    classes: int = 20  # clusters of regions over all images
    head: HeadConfig = field(default_factory=HeadConfig)
    cover: float = 0.9  # coverage that makes one mask a part of another
    crf: CRFConfig | None = PAPER  # None: the foreground is upsampled alone
    crf_method: CRFMethod = "native"
    filters: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        self.working()  # checks size and CRF
        if self.classes < 1:
            raise InputError(f"classes must be at least 1, got {self.classes}")

    def working(self) -> HassodConfig:
        """The size at which features and CRF run."""
        return HassodConfig(
            size=self.size, keep_aspect=self.keep_aspect, cover=self.cover, crf=self.crf, crf_method=self.crf_method
        )


class Heap(PatchLearner):
    """HEAP as a discovery method, see `method.Learner`.

    Args:
        config: Settings. Default: ours.

    """

    fixed = ("classes", "head")

    def __init__(self, config: HeapConfig | None = None) -> None:
        self.config = config or HeapConfig()

    def learn(self, samples: Iterable[np.ndarray], features: Mapping[str, Any]) -> State:
        """Train a head on samples of images, which are held in memory; `train/heap.py` keeps them in a file instead.

        Raises:
            InputError: See `heap_head.training.train_head`.

        """
        held = list(samples)
        if not held:
            raise InputError("there is no image to fit; give a folder of images")
        vectors = np.stack([vectors_of(sample.astype(np.float32)).astype(np.float16) for sample in held])
        grid = held[0].shape[1:]
        from tqdm import tqdm

        from hassod_ros.discovery.heap_head.training import train_head  # torch: not where a head is only used

        if not np.isfinite(vectors).all():
            raise InputError("the features hold NaN or infinity; check the weights and the image they come from")
        border, head_config = on_the_border((grid[0], grid[1])).ravel(), self.config.head
        with tqdm(total=head_config.iterations, unit="iteration", desc="head") as bar:
            head = train_head(vectors, border, head_config, report=lambda done, *_: bar.update(done - bar.n))
        return self.state(head, vectors, (grid[0], grid[1]), features)

    def state(self, head: Head, vectors: np.ndarray, grid: tuple[int, int], features: Mapping[str, Any]) -> State:
        """The state of a trained head, with clusters of the regions of its images.

        Args:
            head: Trained.
            vectors: (images, N, C) of length 1, that it was trained on.
            grid: (h, w) with h w = N.
            features: What `states.describe` says of the features.

        """
        arrays = {_HEAD + name: value.detach().cpu().numpy() for name, value in head.state_dict().items()}
        runner = NumpyHead(arrays, self.config.head)
        border = on_the_border(grid).ravel()
        regions = []
        for each in vectors:
            _, groups, _, _, sizes = runner(each.astype(np.float32), border)
            regions.append(groups[sizes > _USED])
        arrays["class_centres"] = cluster(np.concatenate(regions), self.config.classes, self.config.head.seed, least=1)
        return State(NAME, asdict(self.config), dict(features), arrays)

    def classes(self, state: State) -> int:
        """Number of clusters that regions belong to."""
        return len(_centres(state))

    def partition(self, prepared: Sequence[np.ndarray], features: Features, state: State | None) -> list[Regions]:
        """Foreground, regions and their clusters of each prepared image.

        Raises:
            InputError: There is no state, or it was made with other features.

        """
        if state is None:
            raise InputError("heap needs a trained head; train one with train/heap.py and give its state")
        state.require(describe(features))
        runner, centres = NumpyHead(state.arrays, self.config.head), _centres(state)
        return [self.regions(each, runner, centres) for each in finite_features(prepared, features)]

    @staticmethod
    def regions(features: np.ndarray, head: NumpyHead, centres: np.ndarray) -> Regions:
        """What a head makes of (C, h, w) features."""
        grid = (features.shape[1], features.shape[2])
        vectors = vectors_of(features)
        assignment, groups, _, odds, _ = head(vectors, on_the_border(grid).ravel())
        labels = assignment.argmax(axis=1).astype(np.int32).reshape(grid)
        chosen = foreground_of(odds, vectors, grid).astype(np.float32)
        clusters = nearest(groups, centres)[0].astype(np.int32)
        return Regions(chosen, labels, labels, groups, clusters)


def load_head(state: State, config: HeadConfig) -> Head:
    """The head of a state as a torch module, such as to export it.

    Raises:
        InputError: Parameters are missing, or of another size.

    """
    import torch  # not where a head is only used

    from hassod_ros.discovery.heap_head.network import Head

    named = {name: value for name, value in state.arrays.items() if name.startswith(_HEAD)}
    NumpyHead(named, config)  # names what is missing
    head = Head(named[f"{_HEAD}tokens"].shape[1], config.tokens, config.blocks, config.temperature, config.rounds)
    try:
        head.load_state_dict({name.removeprefix(_HEAD): torch.from_numpy(value) for name, value in named.items()})
    except RuntimeError as error:
        raise InputError(f"the state of heap does not hold such a head ({error}); train it again") from error
    return head.eval()


class NumpyHead:
    """`heap_head.network.Head` without torch.

    Args:
        arrays: Its parameters, each name after `head.`.
        config: Settings that it was trained with.

    Raises:
        InputError: Parameters are missing.

    """

    def __init__(self, arrays: Mapping[str, np.ndarray], config: HeadConfig) -> None:
        self._w = {name.removeprefix(_HEAD): value for name, value in arrays.items() if name.startswith(_HEAD)}
        self._config = config
        needed = {"tokens", "look", "place", "bias", "norm.weight", f"blocks.{config.blocks - 1}.mlp.2.bias"}
        if missing := needed - self._w.keys():
            raise InputError(f"the state of heap has no {', '.join(sorted(missing))}; train the head again")
        dim = self._w["tokens"].shape[1]
        self._heads = next(heads for heads in (6, 4, 3, 2, 1) if dim % heads == 0)

    def __call__(
        self, features: np.ndarray, border: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Group the patches of one image.

        Args:
            features: (N, C) float32 of length 1.
            border: (N,) bool, the patches on the image's border.

        Returns:
            assignment (N, K), groups (K, C) of length 1, scores (K,), odds (N,), sizes (K,), see `network.Grouped`.

        """
        tokens = self._w["tokens"]
        for number in range(self._config.blocks):
            tokens = self._block(tokens, features, f"blocks.{number}.")
        centres = unit(self._norm(tokens, "norm."))
        assignment = softmax(features @ centres.T / self._config.temperature, axis=1)
        for _ in range(self._config.rounds):
            centres = unit(assignment.T @ features)
            assignment = softmax(features @ centres.T / self._config.temperature, axis=1)
        groups, sizes = unit(assignment.T @ features), assignment.mean(axis=0)
        unlike = unlike_border(features, border)
        cues = self._cues(unlike, border, assignment, sizes)
        logits = groups @ self._w["look"] + cues @ self._w["place"] + self._w["bias"]
        trust = explained(unlike, assignment)
        odds = trust * (assignment @ logits) + (1 - trust) * unlike
        return assignment, groups, expit(logits), odds, sizes

    @staticmethod
    def _cues(unlike: np.ndarray, border: np.ndarray, assignment: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        there = assignment[border].mean(axis=0)
        rare = 0.5 - there / (there + sizes + _EPS)
        of_group = unlike @ assignment / (assignment.sum(axis=0) + _EPS)
        return np.stack([rare, of_group / 2], axis=1)

    def _block(self, tokens: np.ndarray, patches: np.ndarray, name: str) -> np.ndarray:
        query = self._linear(self._norm(tokens, f"{name}before."), f"{name}query.")
        key, value = self._linear(patches, f"{name}key."), self._linear(patches, f"{name}value.")
        query, key, value = (part.reshape(len(part), self._heads, -1).swapaxes(0, 1) for part in (query, key, value))
        seen = softmax(query @ key.swapaxes(1, 2) / query.shape[2] ** 0.5, axis=2) @ value  # (heads, K, C / heads)
        tokens = tokens + self._linear(seen.swapaxes(0, 1).reshape(tokens.shape), f"{name}out.")
        hidden = self._linear(self._norm(tokens, f"{name}between."), f"{name}mlp.0.")
        hidden = hidden * (1 + erf(hidden / 2**0.5)) / 2
        return np.asarray(tokens + self._linear(hidden, f"{name}mlp.2."))

    def _linear(self, values: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(values @ self._w[f"{name}weight"].T + self._w[f"{name}bias"])

    def _norm(self, values: np.ndarray, name: str) -> np.ndarray:
        centred = values - values.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-5)
        return np.asarray(scaled * self._w[f"{name}weight"] + self._w[f"{name}bias"])


def _centres(state: State) -> np.ndarray:
    if "class_centres" not in state.arrays:
        raise InputError("the state of heap has no class_centres; train the head again")
    return state.arrays["class_centres"]
