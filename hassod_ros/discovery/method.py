"""The discovery methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import yaml

from hassod_ros.discovery.hassod import HassodConfig, discover_from_features, network_input
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances


@dataclass(frozen=True)
class Method:
    """How a method turns an image and its features into instances.

    Attributes:
        config: The paper's settings, a frozen dataclass.
        network_input: (image (H, W, 3) uint8 RGB, patch size, config) -> the picture that features are taken from.
        discover: (image, features (C, h, w) float32, config) -> Instances.

    """

    config: Any
    network_input: Callable[[np.ndarray, int, Any], np.ndarray]
    discover: Callable[[np.ndarray, np.ndarray, Any], Instances]


METHODS: Mapping[str, Method] = {
    "hassod": Method(HassodConfig(), network_input, discover_from_features),
}


def find_method(name: str) -> Method:
    """The method of a name; InputError for an unknown one."""
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


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
