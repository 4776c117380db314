"""Pseudo-labels for a folder of images: discovery as a Ray Data pipeline (HASSOD, section 3).

    image files -> read (CPU tasks) -> partition (GPU or CPU actors) -> masks (CPU tasks) -> shards -> COCO JSON

(On CPUs Ray runs reading inside the actors: nothing is copied between processes.)

Images are cut into shards and batches by their sorted order alone, so that a continued run computes exactly what an
uninterrupted one does.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numba
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hassod_ros.coco import to_coco
from hassod_ros.commands import reached
from hassod_ros.cores import usable_cores
from hassod_ros.discovery.cluster import probe as probe_cluster
from hassod_ros.discovery.cluster import start_ray
from hassod_ros.discovery.features import DEFAULT, hub, load_features, suited_options
from hassod_ros.discovery.features.base import HANDCRAFTED, Features
from hassod_ros.discovery.method import LEARNERS, Learner, Method, change, instances_of, make_method, open_learner
from hassod_ros.discovery.scene import SceneConfig, WithoutScene
from hassod_ros.discovery.shards import Shards, Summary, check_target, shards_of
from hassod_ros.discovery.states import State, load_state, save_state
from hassod_ros.errors import InputError
from hassod_ros.files import revision, sha256
from hassod_ros.images import name_images, read_image

# What a stage reserves of a CPU: little, so that no stage starves another; the operating system shares the cores.
_SHARE = 0.25


@dataclass(frozen=True)
class Request:
    """What is to be labelled, and how.

    Attributes:
        images: Folder of images, or text file with one path a line.
        out: COCO JSON file to write; the list of failures comes beside it, see `failures_of`.
        method: Name in `METHODS`.
        options: Options of the method that differ from its defaults.
        features: Name that `load_features` knows.
        weights: File of weights; every machine of a cluster must see it under this path, like the images.
        device: `cpu` or `cuda`. Default: `cuda` where Ray finds GPUs.
        precision: `bf16` or `fp32`. Default: what the device computes in.
        ray: Address of a Ray cluster. Default: this machine alone.
        ray_token: File with that cluster's authentication token. Default: what Ray finds by itself.
        cpus: Number of CPUs to use on this machine. Default: all.
        batch: Images that share one pass through the features. Default: 8 on GPUs, 1 on CPUs.
        shard: Images per shard: at most so much work is lost when a run is killed.
        state: What a method that learns has learned before. Default: it learns from these images first, and keeps what
            it has learned beside `out`, see `state_of`.
        scene: Method that learns and tells which masks are scene; `state` is then its own. Default: none.
        scene_options: Of `SceneConfig`, what becomes of them.

    """

    images: Path
    out: Path
    method: str = "hassod"
    options: Mapping[str, Any] = field(default_factory=dict)
    features: str = DEFAULT
    weights: Path | None = None
    device: str | None = None
    precision: str | None = None
    ray: str | None = None
    ray_token: Path | None = None
    cpus: int | None = None
    batch: int | None = None
    shard: int = 32
    state: Path | None = None
    scene: str | None = None
    scene_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Batch:
    """A run of images on its way through the pipeline. Images that failed have an error and no picture."""

    shard: int
    image_ids: list[int]
    names: list[str]
    pictures: list[np.ndarray | None] = field(default_factory=list)
    inputs: list[np.ndarray | None] = field(default_factory=list)
    partitions: list[Any] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)


def pseudo_label(request: Request) -> Summary:
    """Label every image, or continue where a killed run stopped.

    Images that cannot be read or labelled are listed beside the labels (`failures_of`) and never stop the run.

    Raises:
        InputError: A wrong option, no image, no image that could be labelled, or files that cannot be written. What
            was finished is kept; repeating the request continues it.

    """
    if request.shard < 1 or (request.batch or 1) < 1:
        raise InputError("a batch and a shard hold at least 1 image; give --batch and --shard accordingly")
    suited = suited_options(request.features, request.method) if request.method in ("hassod", "sohes") else {}
    file, learns = request.state, _learner_of(request)
    scene = change(SceneConfig(), request.scene_options) if request.scene else None
    if file is None and learns and state_of(request).is_file():
        file = state_of(request)  # a run that was stopped after learning
    method, learner, state = make_method(request.method, suited | dict(request.options)), None, None
    if learns or file is not None:
        own = {} if request.scene else request.options
        if file is not None:
            learner, state = open_learner(learns or request.method, file, own)
        else:
            learner = cast(Learner, make_method(learns, own))
        method = WithoutScene(method, learner, scene) if scene else learner
    probe_cluster(request.ray, request.ray_token)
    root, names = name_images(request.images)
    check_target(request.out)
    _announce(request, method, len(names))
    if request.weights is None and not hub.answers():
        os.environ["HF_HUB_OFFLINE"] = "1"  # the processes that Ray starts here inherit it
    start_ray(request.ray, cpus=request.cpus)
    device = _choose_device(request.device)
    settings = {"features": request.features, "weights": request.weights, "device": device}
    probe = _probe(settings | {"precision": request.precision})
    batch = request.batch or (8 if device == "cuda" else 1)
    plan = _Plan(method, root, settings | {"precision": probe["precision"]}, probe)
    if state is not None:
        state.require(_described(probe))
    if state is None and learner is not None:
        file = state_of(request)
        state = _learn(learner, list(_cut(names, request.shard, batch)), replace(plan, method=learner), device, file)
    provenance = {
        "method": request.method,
        "config": asdict(method.config),
        "features": request.features,
        "weights_sha256": probe["weights_sha256"],
        "precision": probe["precision"],
    }
    if file is not None:
        provenance["state_sha256"] = sha256(file)
    if scene and learner is not None:
        provenance["scene"] = {"method": request.scene, "config": asdict(learner.config), **asdict(scene)}
    shards = Shards(request.out, {**provenance, "batch": batch, "shard": request.shard, "images": names}, revision())
    done = shards.done
    batches = [b for b in _cut(names, request.shard, batch) if b.shard not in done]
    with tqdm(total=len(names), initial=len(names) - sum(len(b.names) for b in batches), unit="image") as bar:
        if batches:
            # The workers on this machine then only load what is compiled; learners compile nothing else.
            bar.set_postfix_str("compiling, which takes a minute once")
            warm_up(make_method("hassod") if state else method)
            bar.set_postfix_str("")
            for shard, records in _by_shard(_run(batches, plan, device, state), batches, bar):
                shards.write(shard, records)
                reached(f"{len(shards.done) * request.shard} of {len(names)} images")
    info = {"description": "pseudo-labels of hassod_ros", **provenance, "revision": shards.revision}
    return shards.merge(info)


def state_of(request: Request) -> Path:
    """Where a method that learns from the images keeps what it has learned: labels.json -> labels.lightcluster.npz."""
    return request.out.with_name(f"{request.out.stem}.{_learner_of(request)}.npz")


def _learner_of(request: Request) -> str:
    """Name of the method that learns from the set; "" = none.

    Raises:
        InputError: Two should, or one that learns nothing should tell what is scene.

    """
    if request.scene is None:
        return request.method if request.method in LEARNERS else ""
    if request.scene not in LEARNERS:
        raise InputError(f"{request.scene} does not know what is scene; choose one of {', '.join(LEARNERS)}")
    if request.method in LEARNERS:
        raise InputError(
            f"{request.method} finds foreground alone; leave --scene out, or take --method hassod or sohes"
        )
    return request.scene


def _learn(method: Learner, batches: list[_Batch], plan: _Plan, device: str, path: Path) -> State:
    """One pass over the features of all images, in parallel; what is learned is written to `path` and read again."""
    failed: list[str] = []

    def samples() -> Iterator[np.ndarray]:
        with tqdm(total=sum(len(batch.names) for batch in batches), unit="image", desc="learning") as bar:
            for batch in _finished(_parallel(batches, plan, device, _Sample, {"plan": plan})):
                failed.extend(error for error in batch.errors if error)
                yield from batch.samples
                bar.update(len(batch.names))

    try:
        state = method.learn(samples(), _described(plan.probe))
    except InputError as error:
        raise InputError(f"{error}; the first image that failed: {failed[0]}" if failed else str(error)) from error
    save_state(path, state)
    return load_state(path, state.method)  # as a continued run has it


def _cut(names: list[str], shard: int, batch: int) -> Iterator[_Batch]:
    for first in range(0, len(names), shard):
        for start in range(first, min(first + shard, len(names)), batch):
            stop = min(start + batch, first + shard, len(names))
            yield _Batch(first // shard, list(range(start + 1, stop + 1)), names[start:stop])


def _announce(request: Request, method: Method, images: int) -> None:
    """Say what will be done, before anything that takes long."""
    thresholds = getattr(method.config, "thresholds", ())
    of_thresholds = f", thresholds {', '.join(map(str, thresholds))}" if thresholds else ""
    where = f"Ray at {request.ray}" if request.ray else f"{request.cpus or usable_cores()} CPUs of this machine"
    done = min(len(shards_of(request.out)) * request.shard, images)
    goes_on = f"; goes on after {done}" if done else ""
    print(
        f"labelling {images} images of {request.images} with {request.method}: {request.features} features"
        f"{of_thresholds}; {where}{goes_on} -> {request.out}",
        flush=True,
    )


def _choose_device(device: str | None) -> str:
    import ray

    gpus = ray.cluster_resources().get("GPU", 0)
    if device is None:
        return "cuda" if gpus else "cpu"
    if device not in ("cpu", "cuda"):
        raise InputError(f"the device of a run is cpu or cuda, not {device!r}; Ray chooses which GPU")
    if device == "cuda" and not gpus:
        raise InputError("Ray finds no GPU; use --device cpu, or name a cluster that has one with --ray")
    return device


def _probe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Load the features once where they will run: errors show before the work begins."""
    import ray

    gpus = 1 if settings["device"] == "cuda" else 0
    answer = ray.get(ray.remote(num_cpus=0, num_gpus=gpus)(_describe_features).remote(settings))
    if "error" in answer:
        raise InputError(answer["error"])
    return answer


def _describe_features(settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        features = _load(settings)
    except InputError as error:
        return {"error": str(error)}
    precision = getattr(features, "precision", "fp32")
    return {
        "name": features.name,
        "dim": features.dim,
        "weights_sha256": features.weights_sha256,
        "precision": precision,
        "patch_size": features.patch_size,
    }


def _described(probe: Mapping[str, Any]) -> dict[str, Any]:
    """The features as `states.describe` has them."""
    return {key: probe[key] for key in ("name", "dim", "weights_sha256")}


def _load(settings: Mapping[str, Any]) -> Features:
    return load_features(settings["features"], settings["weights"], settings["device"], settings["precision"])


def _load_again(plan: _Plan) -> Features:
    """The features in a worker, which may run on another machine."""
    features = _load(plan.settings)
    if features.weights_sha256 != plan.probe["weights_sha256"]:
        raise InputError(f"{plan.settings['features']} has other weights on this machine; use the same everywhere")
    return features


@dataclass(frozen=True)
class _Plan:
    method: Method
    root: Path
    settings: Mapping[str, Any]
    probe: Mapping[str, Any]


def _run(batches: list[_Batch], plan: _Plan, device: str, state: Any) -> Iterator[_Batch]:
    """Labelled batches, in order."""
    described = _parallel(batches, plan, device, _Partition, {"plan": plan, "state": state})
    return _finished(described.map(_discover, fn_kwargs={"plan": plan}, num_cpus=2 * _SHARE))


def _parallel(
    batches: list[_Batch], plan: _Plan, device: str, worker: Callable[..., Any], arguments: Mapping[str, Any]
) -> Any:
    """A Ray data set: the images of each batch are read, then given to one of the workers that hold the features."""
    import ray
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it tells that its bars are off
    on_gpu = device == "cuda"
    resources = ray.cluster_resources()
    cpus = int(resources.get("CPU", 1))
    if on_gpu:
        actors = int(resources["GPU"])
    else:  # a ViT takes most of an image's time, as do methods that learn; other work on handcrafted features little
        light = plan.settings["features"] == HANDCRAFTED and not isinstance(plan.method, Learner)
        actors = math.ceil(cpus / 16) if light else cpus
    source: Any = ray.data.from_items(  # Ray types a stage as if it had no arguments of its own
        # Pickled here, because Arrow would try its own types first and say so.
        [{"batch": pickle.dumps(batch)} for batch in batches],
        override_num_blocks=max(1, min(len(batches), 64 * cpus)),
    )
    return source.map(_read, fn_kwargs={"plan": plan}, num_cpus=_SHARE).map(
        worker,
        fn_constructor_kwargs=dict(arguments),
        compute=ray.data.ActorPoolStrategy(size=max(1, min(actors, len(batches)))),
        num_cpus=_SHARE,
        num_gpus=1 if on_gpu else 0,
    )


def _finished(rows: Any) -> Iterator[_Batch]:
    """The batches of a Ray data set, in order; Ray's warnings, such as of a full object store, stand above the bar."""
    with logging_redirect_tqdm([logging.getLogger(name) for name in ("ray", "ray.data")]):
        for row in rows.iter_rows():
            yield row["batch"]


def _read(row: dict[str, Any], plan: _Plan) -> dict[str, Any]:
    batch = pickle.loads(row["batch"])
    for name in batch.names:
        picture = prepared = None
        error = ""
        try:
            picture = read_image(plan.root / name)
            prepared = plan.method.prepare(picture, plan.probe["patch_size"])
        except Exception as failure:  # one image must not end a run of a quarter of a million
            error = reason(failure, plan.root)
        batch.pictures.append(picture)
        batch.inputs.append(prepared)
        batch.errors.append(error)
    return {"batch": batch}


class _Sample:
    """The features, loaded once an actor, and what the method learns from: feature maps stay here."""

    def __init__(self, plan: _Plan) -> None:
        self._features, self._plan = _load_again(plan), plan

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        batch, method = row["batch"], self._plan.method
        assert isinstance(method, Learner)
        for i, prepared in enumerate(batch.inputs):
            if batch.errors[i]:
                continue
            try:
                batch.samples += method.sample([prepared], self._features)
            except Exception as failure:  # labelling lists it again
                batch.errors[i] = reason(failure, self._plan.root)
        batch.inputs, batch.pictures = [], []
        return {"batch": batch}


class _Partition:
    """The features, loaded once an actor, and what the method finds in them: feature maps stay here."""

    def __init__(self, plan: _Plan, state: Any = None) -> None:
        self._features, self._plan, self._state = _load_again(plan), plan, state

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        batch, method = row["batch"], self._plan.method
        whole = [i for i, error in enumerate(batch.errors) if not error]
        batch.partitions = [None] * len(batch.names)
        try:
            found = method.partition([batch.inputs[i] for i in whole], self._features, self._state) if whole else []
            for i, each in zip(whole, found, strict=True):
                batch.partitions[i] = each
        except Exception:  # of one image, maybe: each for itself shows which
            for i in whole:
                batch.partitions[i], batch.errors[i] = self._alone(batch.inputs[i])
        batch.inputs = []
        return {"batch": batch}

    def _alone(self, prepared: np.ndarray) -> tuple[Any, str]:
        try:
            (partition,) = self._plan.method.partition([prepared], self._features, self._state)
        except Exception as failure:
            return None, reason(failure, self._plan.root)
        return partition, ""


def _discover(row: dict[str, Any], plan: _Plan) -> dict[str, Any]:
    batch, method = row["batch"], plan.method
    # One thread a worker: images are what runs in parallel.
    numba.set_num_threads(1)
    cv2.setNumThreads(1)
    for image_id, name, picture, partition, error in zip(
        batch.image_ids, batch.names, batch.pictures, batch.partitions, batch.errors, strict=True
    ):
        try:
            instances = None if error else method.masks(picture, partition)
        except Exception as failure:
            error = reason(failure, plan.root)
        if error or instances is None:
            batch.records.append({"failure": {"file_name": name, "error": error}})
            continue
        height, width = instances.image_size
        image = {"id": image_id, "file_name": name, "height": height, "width": width}
        batch.records.append({"image": image, "annotations": to_coco(instances, image_id)})
    batch.pictures, batch.partitions = [], []
    return {"batch": batch}


def reason(failure: Exception, root: Path) -> str:
    """Why an image could not be labelled, in one line for the list of failures."""
    text = str(failure).replace(f"{root}{os.sep}", "")
    return text if isinstance(failure, InputError) else f"{type(failure).__name__}: {text}"


def warm_up(method: Method) -> None:
    """Compile and load whatever a method compiles: the first image is then as fast as the others."""
    picture = np.full((64, 64, 3), 40, np.uint8)
    picture[10:50, 10:30], picture[20:60, 40:60] = (200, 40, 40), (40, 40, 200)
    instances_of(picture, method, load_features(HANDCRAFTED))


def _by_shard(
    finished: Iterator[_Batch], batches: list[_Batch], bar: tqdm
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Collect the batches of each shard."""
    missing: dict[int, int] = {}
    for batch in batches:
        missing[batch.shard] = missing.get(batch.shard, 0) + len(batch.names)
    records: list[dict[str, Any]] = []
    for batch in finished:
        records += batch.records
        bar.update(len(batch.names))
        if len(records) == missing[batch.shard]:
            yield batch.shard, records
            records = []
