"""What a discovery method is, and the methods by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import yaml

from hassod_ros.discovery.features.base import Features
from hassod_ros.discovery.hassod import Hassod, HassodConfig
from hassod_ros.discovery.sohes import Sohes, SohesConfig
from hassod_ros.discovery.states import State, load_state
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances


class Method(Protocol):
    """From images and their features to instances, in steps that different workers do.

    Feature maps are large (11 MB an image): they stay with the worker that computed them. What travels is small.

    Attributes:
        config: Settings, a frozen dataclass.

    """

    config: Any

    def prepare(self, image: np.ndarray, patch_size: int) -> np.ndarray:
        """The (H', W', 3) uint8 picture that features are taken from, of an image (H, W, 3) uint8 RGB; on a CPU."""
        ...

    def fit(self, images: Iterable[np.ndarray], features: Features) -> Any:
        """What the method learns once from a set of prepared images; None where it learns nothing."""
        ...

    def partition(self, prepared: Sequence[np.ndarray], features: Features, state: Any) -> list[Any]:
        """What is found in the features of each prepared image, such as label maps; where the features are."""
        ...

    def masks(self, image: np.ndarray, partition: Any) -> Instances:
        """The instances of an image, given its entry of `partition`; on a CPU."""
        ...


@runtime_checkable
class Learner(Method, Protocol):
    """A method that learns from a set and knows what is foreground; its state is a `State`.

    Attributes:
        fixed: Names of settings that a state was made with: they cannot be changed afterwards.

    """

    fixed: tuple[str, ...]

    def sample(self, prepared: Sequence[np.ndarray], features: Features) -> list[np.ndarray]:
        """What `learn` needs of each prepared image, which is small; where the features are."""
        ...

    def learn(self, samples: Iterable[np.ndarray], features: Mapping[str, Any]) -> State:
        """The state after one pass over the samples of a set; `features` as `states.describe` says."""
        ...

    def classes(self, state: State) -> int:
        """How many classes regions have; they mean the same in all images."""
        ...

    def foreground(self, image: np.ndarray, partition: Any) -> np.ndarray:
        """(H, W) float32 foreground of an image in [0, 1], given its entry of `partition`; on a CPU."""
        ...


def instances_of(image: np.ndarray, method: Method, features: Features, state: Any = None) -> Instances:
    """All steps of a method on one image.

    Args:
        image: (H, W, 3) uint8 RGB.
        method: What finds them.
        features: What it sees.
        state: What it has learned; None where it learns nothing.

    Raises:
        InputError: The image is not (H, W, 3) uint8, or the state does not suit.

    """
    (partition,) = method.partition([method.prepare(image, features.patch_size)], features, state)
    return method.masks(image, partition)


@dataclass(frozen=True)
class _Entry:
    config: Any  # the paper's settings
    make: Any  # settings -> Method


def _lightcluster() -> _Entry:
    from hassod_ros.discovery.lightcluster import LightCluster, LightClusterConfig  # scikit-learn loads slowly

    return _Entry(LightClusterConfig(), LightCluster)


def _heap() -> _Entry:
    from hassod_ros.discovery.heap import Heap, HeapConfig

    return _Entry(HeapConfig(), Heap)


METHODS: Mapping[str, Callable[[], _Entry]] = {
    "hassod": lambda: _Entry(HassodConfig(), Hassod),
    "sohes": lambda: _Entry(SohesConfig(), Sohes),
    "lightcluster": _lightcluster,
    "heap": _heap,
}
LEARNERS = ("lightcluster", "heap")


def make_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """The method of a name with the paper's settings, some of them changed.

    Args:
        name: One of `METHODS`.
        options: See `change`.

    Raises:
        InputError: An unknown method or option, or a value that the method refuses.

    """
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    entry = METHODS[name]()
    method: Method = entry.make(change(entry.config, options or {}))
    return method


def open_learner(
    name: str, state: str | os.PathLike, options: Mapping[str, Any] | None = None
) -> tuple[Learner, State]:
    """A method with the settings of what it has learned, some of them changed, and that state.

    Args:
        name: One of `LEARNERS`.
        state: File of `states.save_state`.
        options: See `change`.

    Raises:
        InputError: No such method or file, or an option that the state was made with another value of.

    """
    if name not in LEARNERS:
        raise InputError(f"{name} has no state; choose one of {', '.join(LEARNERS)}, or leave {state} out")
    learned = load_state(state, name)
    entry = METHODS[name]()
    written = _restored(entry.config, learned.config, str(state))
    method = cast(Learner, entry.make(change(written, options or {})))
    for setting in method.fixed:
        if getattr(method.config, setting) != getattr(written, setting):
            raise InputError(
                f"{state} was made with {setting} {getattr(written, setting)}; leave the option out, or fit again"
            )
    return method, learned


def _restored(config: Any, values: Mapping[str, Any], source: str) -> Any:
    """A configuration with the values that a file holds as JSON."""
    changed = {}
    try:
        for name, value in values.items():
            default = getattr(config, name)
            if isinstance(value, Mapping):
                changed[name] = _restored(default, value, source)
            else:
                changed[name] = tuple(value) if isinstance(value, list) else value
        return replace(config, **changed)
    except (AttributeError, TypeError) as error:
        raise InputError(f"{source} holds settings of another version ({error}); fit again") from error


def parse_option(text: str) -> tuple[str, Any]:
    """Name and value of an option as people write it; InputError where there is no `=` or no YAML behind it.

    Example:
        >>> parse_option("filters.min_area=400"), parse_option("thresholds=[0.4, 0.2]")
        (('filters.min_area', 400), ('thresholds', [0.4, 0.2]))

    """
    name, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError(text)
        return name, yaml.safe_load(value)
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{text!r} is not NAME=VALUE") from error


def change(config: Any, options: Mapping[str, Any]) -> Any:
    """A configuration with some values changed.

    Args:
        config: Frozen dataclass, possibly of others.
        options: Values by name; `filters.min_area` is `min_area` of the part `filters`.

    Raises:
        InputError: Unknown name, or a value that the configuration refuses.

    """
    for name, value in options.items():
        first, _, rest = name.partition(".")
        known = [field.name for field in fields(config)]
        if first not in known or (rest and not is_dataclass(getattr(config, first))):
            raise InputError(f"there is no option {name!r}; {type(config).__name__} has {', '.join(known)}")
        if rest:
            value = change(getattr(config, first), {rest: value})
        elif is_dataclass(getattr(config, first)) and value is not None:
            raise InputError(f"option {name} is a group of options; set one of them, such as {name}.NAME, or null")
        try:
            config = replace(config, **{first: tuple(value) if isinstance(value, list) else value})
        except TypeError as error:
            raise InputError(f"option {name} cannot be {value!r}: {error}") from error
    return config
