"""Parameters as data: one table per node declares them, checks new values and writes the reference in docs/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from hassod_ros.errors import InputError
from hassod_ros.nodes.overrides import take_override

Value = bool | int | float | str | list[str] | list[int] | list[float]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of a node.

    Attributes:
        name: ROS name; dots group parameters.
        default: Also gives the type.
        description: One sentence for people.
        unit: Such as "s" or "Hz"; "" where there is none.
        low: Least value allowed (numbers).
        high: Greatest value allowed (numbers).
        choices: Values allowed, for strings and for the elements of lists.
        read_only: True where a change needs a restart.
        formerly: Its old name, which is still read at the start, with a warning; "" where there is none.
        check: Gets a value and raises InputError where its form is wrong; None: every form is allowed.

    """

    name: str
    default: Value
    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False
    formerly: str = ""
    check: Callable[[Any], object] | None = None

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows."""
        text = f"{self.description} [{self.unit}]" if self.unit else self.description
        message = ParameterDescriptor(description=text, read_only=self.read_only)
        if self.choices:
            message.additional_constraints = f"one of {', '.join(self.choices)}"
        if isinstance(self.default, int) and self.low is not None and self.high is not None:
            message.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high))]
        if self._is_float:
            # Otherwise rclpy refuses whole numbers, as in `max_rate:=5`. The range is then checked here.
            message.dynamic_typing = True
            if isinstance(self.default, float) and self.low is not None and self.high is not None:
                message.floating_point_range = [
                    FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
                ]
        return message

    @property
    def _is_float(self) -> bool:
        return isinstance(self.default[0] if isinstance(self.default, list) else self.default, float)

    def read(self, value: Any) -> Any:
        """The value as this package uses it: lists as list, and a float also where a whole number was given."""
        if isinstance(self.default, list):
            return [float(entry) for entry in value] if self._is_float else list(value)
        return float(value) if self._is_float else value

    def refusal(self, value: Any) -> str:
        """Why `value` is not allowed, "" where it is.

        Type and range are checked by rclpy through the descriptor, but for floats, which may be whole numbers.
        """
        if isinstance(self.default, float):
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"{self.name} must be a number, not {value!r}"
            if self.low is not None and self.high is not None and not self.low <= value <= self.high:  # nor NaN
                unit = f" {self.unit}" if self.unit else ""
                return f"{self.name} is out of range: it must be {self.low:g} to {self.high:g}{unit}, not {value:g}"
        if isinstance(self.default, list):
            if not value:
                return f"{self.name} is empty; give it a value, or leave it out"
            if not isinstance(self.default[0], str) and len(value) != len(self.default):
                return f"{self.name} must be {len(self.default)} numbers, not {list(value)}"
        given = list(value) if isinstance(self.default, list) else [value]
        if self.choices:
            for entry in given:
                if entry not in self.choices:
                    return f"{self.name} cannot hold {entry!r}; use {', '.join(self.choices)}"
            if len(set(given)) != len(given):
                return f"{self.name} names a value twice: {list(given)}"
        if self.check is not None:
            try:
                self.check(value)
            except InputError as error:
                return str(error)
        return ""


def declare(node: Node, table: Sequence[Parameter]) -> None:
    """Declare the parameters on a node and refuse wrong values from now on.

    Raises:
        InputError: A value from the command line or the parameter file is of a wrong type or out of range.

    """
    by_name = {parameter.name: parameter for parameter in table}

    def check(changes: list[RosParameter]) -> SetParametersResult:
        for change in changes:
            if change.name in by_name and (reason := by_name[change.name].refusal(change.value)):
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)
    try:
        for parameter in table:
            default = _renamed(node, parameter)
            node.declare_parameter(parameter.name, default, parameter.descriptor())
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        text = str(error).removesuffix(f": {parameter.name}")  # rclpy says it before and behind
        said = text.partition("Reason: ")[2] or text
        raise InputError(f"parameter {parameter.name} is wrong: {said}; see --help or docs/ros_api.md") from error


def _renamed(node: Node, parameter: Parameter) -> Value:
    """The value that was given under the parameter's old name, else its default."""
    given = take_override(node, parameter.formerly) if parameter.formerly else None
    if given is None:
        return parameter.default
    node.get_logger().warning(f"the parameter {parameter.formerly} is called {parameter.name} now; rename it")
    return given


def values(node: Node, table: Sequence[Parameter]) -> dict[str, Any]:
    """Current values by name; lists as list, floats as float."""
    return {parameter.name: parameter.read(node.get_parameter(parameter.name).value) for parameter in table}


def markdown(table: Sequence[Parameter]) -> str:
    """The reference table of docs/ros_api.md."""
    lines = ["| parameter | type | default | allowed | changeable | meaning |", "|---|---|---|---|---|---|"]
    for parameter in table:
        several = isinstance(parameter.default, list)
        kind = type(parameter.default[0] if isinstance(parameter.default, list) else parameter.default).__name__
        kind = {"str": "string", "float": "double"}.get(kind, kind) + (" list" if several else "")
        default = str(parameter.default).lower() if isinstance(parameter.default, bool) else repr(parameter.default)
        unit = f" {parameter.unit}" if parameter.unit else ""
        allowed = ", ".join(parameter.choices)
        if parameter.low is not None and parameter.high is not None:
            allowed = f"{parameter.low:g} to {parameter.high:g}{unit}"
        cells = [f"`{parameter.name}`", kind, f"`{default}`{unit}", allowed, "no" if parameter.read_only else "yes"]
        lines.append(f"| {' | '.join([*cells, parameter.description])} |")
    return "\n".join(lines) + "\n"
