"""LightCluster: foreground and classes from clusterings of the features at three levels, without training.

After Cheung, Chen, Yang, Zhao, "Unsupervised semantic segmentation through multilevel clustering of attention features"
(arXiv 2311.18628). What its abstract and figures say: features of a self-supervised ViT are clustered into few clusters
over the whole set, within categories and within the image; where these agree is foreground; the masks are upsampled,
refined, and the regions of objects clustered into classes. Its numbers of clusters, thresholds and rule of consistency
are not public: those here are chosen by us.

* Categories are clusters of image embeddings (the mean feature of an image); no label of an image is used.
* A cluster's foreground score is how unlike the border of their images its patches are on average (see
  `regions.unlike_border`); within an image, of the set, or of the category.
* Consistency: the image tells which clusters of the set and of its category are foreground in it (what the paper's
  Figure 1 says of the image level). Their scores are the mean unlikeness of their patches in this image, and the
  scores of the set count as some more patches, as many as the level explains of that unlikeness over the set. Without
  the image level the scores of the set count.
* Each level has the weight r / (1 - r) of the share r that it explains of how unlike the border the image's patches
  are (see `reliability`): clusters of noisy features mix what the border tells apart. The levels' weighted mean is
  added to how unlike the border a patch is itself, with the largest of their weights: they see the same patches, and
  agreeing thrice proves no more. Near and alike patches share their sums (see `random_walk`); above Otsu's threshold
  they are foreground.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.cluster import KMeans, MiniBatchKMeans

from hassod_ros.discovery.crf.config import PAPER, CRFConfig
from hassod_ros.discovery.crf.config import Method as CRFMethod
from hassod_ros.discovery.features.base import Features
from hassod_ros.discovery.filters import FilterConfig
from hassod_ros.discovery.hassod import HassodConfig
from hassod_ros.discovery.patch_learner import PatchLearner, finite_features
from hassod_ros.discovery.regions import (
    Regions,
    components,
    foreground_of,
    means_of,
    on_the_border,
    unit,
    unlike_border,
    vectors_of,
)
from hassod_ros.discovery.reliability import explained
from hassod_ros.discovery.states import State, describe
from hassod_ros.errors import InputError

NAME = "lightcluster"
LEVELS = ("image", "category", "dataset")
_BATCH = 4096  # patches a step of the mini-batch k-means of the set
_MEMBERS = 32  # patches that a cluster needs on average: one of a few patches only tells where these lie
_IMAGE_BATCH = 256  # image embeddings a step
_TEMPERATURE = 0.1  # of the shares by cosine that patches have in clusters, as in HEAP
_LEAST = 0.01  # share that is left to the patch itself at least
_PRIOR = 64  # patches that the set's score of a cluster counts as in an image, of a level that explains everything


@dataclass(frozen=True)
class LightClusterConfig:
    """Settings of LightCluster; all chosen by us, the paper's are not public.

    Raises:
        InputError: A value is out of its range.

    """

    size: int = 480  # side of the square that an image is resized to, px
    keep_aspect: bool = False  # instead a rectangle of the image's shape with as many pixels
    levels: tuple[str, ...] = LEVELS  # whose foreground scores count
    dataset_clusters: int = 64  # of all patches
    categories: int = 8  # of images
    category_clusters: int = 32  # of the patches of a category
    image_clusters: int = 6  # of the patches of an image
    classes: int = 20  # of regions
    min_region: float = 0.01  # share of the image that a region needs for a class
    most_images: int = 1024  # kept while fitting for the levels below the set: memory does not grow beyond
    cover: float = 0.9  # coverage that makes one mask a part of another
    crf: CRFConfig | None = PAPER  # None: the foreground is upsampled alone
    crf_method: CRFMethod = "native"
    filters: FilterConfig = field(default_factory=FilterConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        self.working()  # checks size and CRF
        if not self.levels or set(self.levels) - set(LEVELS) or len(set(self.levels)) < len(self.levels):
            raise InputError(
                f"levels are some of {', '.join(LEVELS)}, each once, got {', '.join(self.levels) or 'none'}"
            )
        for name in ("dataset_clusters", "category_clusters", "image_clusters"):
            if getattr(self, name) < 2:
                raise InputError(f"{name} must be at least 2: foreground and background, got {getattr(self, name)}")
        for name in ("categories", "classes", "most_images"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.min_region < 1:
            raise InputError(f"min_region is a share of the image, above 0 and below 1, got {self.min_region}")

    def working(self) -> HassodConfig:
        """The size at which features and CRF run."""
        return HassodConfig(
            size=self.size, keep_aspect=self.keep_aspect, cover=self.cover, crf=self.crf, crf_method=self.crf_method
        )


class LightCluster(PatchLearner):
    """LightCluster as a discovery method, see `method.Learner`.

    Args:
        config: Settings. Default: ours.

    """

    fixed = ("dataset_clusters", "categories", "category_clusters", "classes", "most_images", "seed")

    def __init__(self, config: LightClusterConfig | None = None) -> None:
        self.config = config or LightClusterConfig()

    def learn(self, samples: Iterable[np.ndarray], features: Mapping[str, Any]) -> State:
        """One pass over samples of images -> what `partition` needs of the set.

        Args:
            samples: Of `sample`, one an image. A bounded number is kept, drawn evenly from all (Vitter's reservoir).
            features: What `states.describe` says of the features.

        Raises:
            InputError: No sample, or NaN in one.

        """
        return _Learner(self.config, features).learn(samples)

    def partition(self, prepared: Sequence[np.ndarray], features: Features, state: State | None) -> list[Regions]:
        """Foreground, regions and classes of each prepared image.

        Raises:
            InputError: There is no state, or it was made with other features or cluster numbers.

        """
        if state is None:
            raise InputError("lightcluster needs a state; fit it on a folder of images first")
        state.require(describe(features))
        codebooks = Codebooks.of(state)
        return [self._regions(each, codebooks) for each in finite_features(prepared, features)]

    def classes(self, state: State) -> int:
        """Number of classes that regions have."""
        return len(Codebooks.of(state).class_centres)

    def _regions(self, features: np.ndarray, codebooks: Codebooks) -> Regions:
        grid = features.shape[1:]
        vectors = vectors_of(features)
        scores, parts = _foreground(vectors, grid, codebooks, self.config)
        chosen = foreground_of(scores, vectors, grid)
        labels = components(chosen, self.config.min_region)
        embeddings = means_of(vectors, labels.ravel(), int(labels.max()) + 1)
        clusters = nearest(embeddings, codebooks.class_centres)[0].astype(np.int32)
        return Regions(chosen.astype(np.float32), labels, parts.reshape(grid), embeddings, clusters)


@dataclass(frozen=True, eq=False)
class Codebooks:
    """Cluster centres and foreground scores of the set, see `State.arrays`.

    Attributes:
        dataset_centres: (K, C) float32 of length 1.
        dataset_scores: (K,) float32 foreground in [0, 1].
        category_images: (G, C) float32, centres of image embeddings.
        category_centres: (G, K', C) float32; a category of few patches repeats its last centre.
        category_scores: (G, K') float32.
        level_weights: (3,) float32 of `LEVELS`.
        class_centres: (L, C) float32.

    """

    dataset_centres: np.ndarray
    dataset_scores: np.ndarray
    category_images: np.ndarray
    category_centres: np.ndarray
    category_scores: np.ndarray
    level_weights: np.ndarray
    class_centres: np.ndarray

    @classmethod
    def of(cls, state: State) -> Codebooks:
        """The codebooks of a state; InputError where some are missing."""
        try:
            return cls(**{each.name: state.arrays[each.name] for each in fields(cls)})
        except KeyError as error:
            raise InputError(f"the state of lightcluster has no {error}; fit again") from error


class _Learner:
    """Fits the codebooks while samples pass by."""

    def __init__(self, config: LightClusterConfig, features: Mapping[str, Any]) -> None:
        self._config, self._features = config, features
        self._rng = np.random.default_rng(config.seed)
        self._kept: list[np.ndarray] = []
        self._seen = 0

    def learn(self, samples: Iterable[np.ndarray]) -> State:
        config = self._config
        dataset = MiniBatchKMeans(config.dataset_clusters, random_state=config.seed, n_init=3, batch_size=_BATCH)
        categories = MiniBatchKMeans(config.categories, random_state=config.seed, n_init=3, batch_size=_IMAGE_BATCH)
        feeds = (
            _Feed(dataset, max(_BATCH, config.dataset_clusters), _MEMBERS),
            _Feed(categories, max(_IMAGE_BATCH, config.categories), 1),
        )
        for sample in samples:
            vectors = vectors_of(sample.astype(np.float32))
            if not np.isfinite(vectors).all():
                raise InputError("the features hold NaN or infinity; check the weights and the image they come from")
            feeds[0].add(vectors)
            feeds[1].add(_embedding(vectors)[None])
            self._keep(sample)
        if not self._kept:
            raise InputError("there is no image to fit; give a folder of images")
        centres, images = (unit(feed.centres()) for feed in feeds)
        return self._finish(centres, images)

    def _keep(self, sample: np.ndarray) -> None:
        """Algorithm R: every image stays with the same probability."""
        self._seen += 1
        if len(self._kept) < self._config.most_images:
            self._kept.append(sample)
        elif (place := int(self._rng.integers(self._seen))) < len(self._kept):
            self._kept[place] = sample

    def _finish(self, dataset: np.ndarray, images: np.ndarray) -> State:
        config = self._config
        group = nearest(np.stack([_embedding(vectors) for vectors in self._vectors()]), images)[0]
        unlike = [unlike_border(vectors, _border(sample)) for sample, vectors in self._pairs()]
        width = config.category_clusters
        shape = (len(images), width, dataset.shape[1])
        centres, scores = np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)
        for number in range(len(images)):
            members = [vectors for vectors, own in zip(self._vectors(), group, strict=True) if own == number]
            if not members:  # of images that have left: what the set knows serves
                found, score = dataset[:1], np.zeros(1, np.float32)
            else:
                patches = np.concatenate(members)
                found = cluster(patches, width, config.seed)
                values = np.concatenate([each for each, own in zip(unlike, group, strict=True) if own == number])
                score = cluster_scores(nearest(patches, found)[0], values, len(found))
            centres[number], scores[number] = _padded(found, width), _padded(score, width)
        every = np.concatenate([nearest(vectors, dataset)[0] for vectors in self._vectors()])
        arrays = {
            "dataset_centres": dataset,
            "dataset_scores": cluster_scores(every, np.concatenate(unlike), len(dataset)),
            "category_images": images,
            "category_centres": centres,
            "category_scores": scores,
        }
        codebooks = Codebooks(**arrays, level_weights=np.ones(len(LEVELS), np.float32), class_centres=dataset[:0])
        arrays["level_weights"] = self._weights(codebooks, unlike)
        codebooks = replace(codebooks, level_weights=arrays["level_weights"])
        arrays["class_centres"] = self._classes(codebooks)
        return State(NAME, asdict(config), self._features, arrays)

    def _weights(self, codebooks: Codebooks, unlike: list[np.ndarray]) -> np.ndarray:
        """(3,) share of the variance of unlikeness that the clusters of each level explain; in [0, 1]."""
        every = replace(self._config, levels=LEVELS)
        found: dict[str, list[np.ndarray]] = {level: [] for level in LEVELS}
        for vectors, values in zip(self._vectors(), unlike, strict=True):
            for level, (_, labels, scores) in _clusterings(vectors, values, codebooks, every).items():
                found[level].append(scores[labels])
        total = max(float(np.square(np.concatenate(unlike)).mean()), 1e-12)  # its mean in an image is 0
        shares = [np.square(np.concatenate(found[level])).mean() / total for level in LEVELS]
        return np.clip(np.array(shares, np.float32), 0, 1)

    def _classes(self, codebooks: Codebooks) -> np.ndarray:
        """Centres of the embeddings of the regions in the images that were kept."""
        found = [np.zeros((0, codebooks.dataset_centres.shape[1]), np.float32)]
        for sample, vectors in self._pairs():
            grid = sample.shape[1:]
            chosen = foreground_of(_foreground(vectors, grid, codebooks, self._config)[0], vectors, grid)
            labels = components(chosen, self._config.min_region).ravel()
            found.append(means_of(vectors, labels, int(labels.max(initial=-1)) + 1))
        regions = np.concatenate(found)
        if not len(regions):  # nothing stands out in any image
            return codebooks.dataset_centres[:1]
        return cluster(regions, self._config.classes, self._config.seed, least=1)

    def _pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return zip(self._kept, self._vectors(), strict=True)

    def _vectors(self) -> Iterator[np.ndarray]:
        for sample in self._kept:
            yield vectors_of(sample.astype(np.float32))


class _Feed:
    """Collects rows into steps of a mini-batch k-means: its first step needs at least as many rows as clusters."""

    def __init__(self, kmeans: MiniBatchKMeans, step: int, least: int) -> None:
        self._kmeans, self._step, self._least = kmeans, step, least
        self._rows: list[np.ndarray] = []
        self._count = 0
        self._begun = False

    def add(self, rows: np.ndarray) -> None:
        self._rows.append(rows)
        self._count += len(rows)
        if self._count >= self._step:
            self._learn()

    def centres(self) -> np.ndarray:
        """(K, C); of fewer rows than one step, plain k-means."""
        if not self._begun:
            rows = np.concatenate(self._rows)
            return cluster(rows, self._kmeans.n_clusters, self._kmeans.random_state, least=self._least)
        if self._rows:
            self._learn()
        return np.asarray(self._kmeans.cluster_centers_, np.float32)

    def _learn(self) -> None:
        self._kmeans.partial_fit(np.concatenate(self._rows))
        self._rows, self._count, self._begun = [], 0, True


def cluster(vectors: np.ndarray, count: int, seed: int, *, starts: int = 2, least: int = _MEMBERS) -> np.ndarray:
    """(K, C) float32 centres of length 1 of k-means, K at most `count` and the number of different vectors.

    Args:
        vectors: (n, C) float32, at least one.
        count: Clusters wanted.
        seed: Of the start.
        starts: Tries, of which the best is kept.
        least: Vectors for each cluster, on average; with fewer there are fewer clusters.

    """
    count = max(1, min(count, len(vectors) // least))
    different = np.unique(vectors.round(5), axis=0) if len(vectors) <= 2 * count or _flat(vectors) else None
    if different is not None and len(different) <= count:
        return unit(different)
    kmeans: Any
    if len(vectors) > 4 * _BATCH:
        kmeans = MiniBatchKMeans(count, random_state=seed, n_init=starts, batch_size=_BATCH)
    else:
        kmeans = KMeans(count, random_state=seed, n_init=starts, max_iter=50)
    return unit(kmeans.fit(vectors).cluster_centers_)


def nearest(vectors: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index (n,) int64 of the nearest centre by cosine, and that cosine (n,); without centres index -1, cosine -1."""
    if not len(centres):
        return np.full(len(vectors), -1, np.int64), np.full(len(vectors), -1, np.float32)
    alike = vectors @ centres.T
    best = alike.argmax(axis=1)
    return best, np.take_along_axis(alike, best[:, None], axis=1)[:, 0]


def cluster_scores(
    labels: np.ndarray, unlike: np.ndarray, count: int, *, known: np.ndarray | float = 0.0, patches: float = 0.0
) -> np.ndarray:
    """(count,) float32 mean of `unlike` (n,) of the patches of each cluster; 0 for a cluster without any.

    Args:
        labels: (n,) clusters of the patches.
        unlike: (n,) values of the patches.
        count: Clusters.
        known: (count,) scores that are known already.
        patches: How many patches these count as.

    """
    members = np.bincount(labels, minlength=count) + patches
    sums = np.bincount(labels, weights=unlike, minlength=count) + patches * known
    return np.divide(sums, members, out=np.zeros(count), where=members > 0).astype(np.float32)


def _foreground(
    vectors: np.ndarray, grid: tuple[int, ...], codebooks: Codebooks, config: LightClusterConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Foreground scores (n,) float32 of the patches of an image, and the parts (n,) int32 that they belong to."""
    unlike = unlike_border(vectors, on_the_border((grid[0], grid[1])).ravel())
    found = _clusterings(vectors, unlike, codebooks, config)
    # Of the set's clusters, which have to serve all images, parts would be confetti.
    finest = found.get("image") or found.get("dataset")
    parts = finest[1] if finest is not None else nearest(vectors, codebooks.dataset_centres)[0]
    weights, values = [], []
    for level, (centres, labels, scores) in found.items():
        patches = 0.0 if level == "image" else _PRIOR * float(codebooks.level_weights[LEVELS.index(level)])
        shares = softmax(vectors @ centres.T / _TEMPERATURE, axis=1)
        trust = explained(unlike, shares, scores, patches)
        if "image" in found:
            scores = cluster_scores(labels, unlike, len(scores), known=scores, patches=patches)
        weights.append(trust / max(1 - trust, _LEAST))
        values.append(scores[labels])
    # All levels see the same patches: their mean is one witness, as good as the best of them, not three.
    best = max(weights)
    levels = np.average(values, axis=0, weights=weights) if best > 0 else np.zeros(len(unlike))
    total = unlike + np.float32(best) * levels.astype(np.float32)
    return total, parts.astype(np.int32)


def _clusterings(
    vectors: np.ndarray, unlike: np.ndarray, codebooks: Codebooks, config: LightClusterConfig
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each level in an image: the clusters' centres (K, C), that of each patch (n,), their scores (K,) float32."""
    found = {}
    if "image" in config.levels:
        own = cluster(vectors, config.image_clusters, config.seed, starts=1, least=1)
        labels, _ = nearest(vectors, own)
        found["image"] = own, labels, cluster_scores(labels, unlike, len(own))
    if "category" in config.levels:
        (group,), _ = nearest(_embedding(vectors)[None], codebooks.category_images)
        centres, first = np.unique(codebooks.category_centres[group], axis=0, return_index=True)  # none twice
        found["category"] = centres, nearest(vectors, centres)[0], codebooks.category_scores[group][first]
    if "dataset" in config.levels:
        centres = codebooks.dataset_centres
        found["dataset"] = centres, nearest(vectors, centres)[0], codebooks.dataset_scores
    return found


def _border(sample: np.ndarray) -> np.ndarray:
    return on_the_border((sample.shape[1], sample.shape[2])).ravel()


def _embedding(vectors: np.ndarray) -> np.ndarray:
    return unit(vectors.mean(axis=0)[None])[0]


def _flat(vectors: np.ndarray) -> bool:
    """Whether all vectors are nearly one: k-means would warn and return copies."""
    return float(np.ptp(vectors, axis=0).max()) < 1e-5


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([values, np.repeat(values[-1:], length - len(values), axis=0)])
