"""Eight values at once, for numba: the inner loops of the CRF as vector instructions on any processor.

Values are stored as float16 (numba has no arithmetic for it: the arrays are uint16 and are converted on the way in
and out of the registers) or as float32. Indices are uint64, in values, of the first of the eight.
"""

from __future__ import annotations

import platform
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import types

intrinsic: Any = extending.intrinsic  # numba calls the functions without their first argument; mypy cannot know
LANES = 8
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_HALVES = ir.VectorType(ir.HalfType(), LANES)


def storage() -> type:
    """np.uint16 (float16) where the processor converts it, which halves the memory traffic, else np.float32."""
    converts = platform.machine() in ("aarch64", "arm64") or llvmlite.binding.get_host_cpu_features().get("f16c", False)
    return np.uint16 if converts else np.float32


def _pointer(context, builder, array_type, array, index):  # type: ignore[no-untyped-def]
    data = builder.gep(context.make_array(array_type)(context, builder, array).data, [index])
    return builder.bitcast(data, (_HALVES if array_type.dtype == types.uint16 else _FLOATS).as_pointer())


def _load(context, builder, array_type, array, index):  # type: ignore[no-untyped-def]
    value = builder.load(_pointer(context, builder, array_type, array, index), align=array_type.dtype.bitwidth // 8)
    return builder.fpext(value, _FLOATS) if array_type.dtype == types.uint16 else value


def _store(context, builder, array_type, array, index, value):  # type: ignore[no-untyped-def]
    if array_type.dtype == types.uint16:
        value = builder.fptrunc(value, _HALVES)
    builder.store(value, _pointer(context, builder, array_type, array, index), align=array_type.dtype.bitwidth // 8)


def _spread(builder, scalar):  # type: ignore[no-untyped-def]
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_FLOATS, ir.Undefined), zeros)


def _multiply_add(builder, value, factor, total):  # type: ignore[no-untyped-def]
    return builder.fadd(total, builder.fmul(value, factor, flags=["contract"]), flags=["contract"])


def _peak(builder, value):  # type: ignore[no-untyped-def]
    """Largest absolute value: halves folded onto each other."""
    lanes = ir.VectorType(ir.IntType(32), LANES)
    value = builder.select(
        builder.fcmp_ordered("<", value, ir.Constant(_FLOATS, [0.0] * LANES)), builder.fneg(value), value
    )
    for distance in (4, 2, 1):
        folded = ir.Constant(lanes, [(lane + distance) % LANES for lane in range(LANES)])
        other = builder.shuffle_vector(value, ir.Constant(_FLOATS, ir.Undefined), folded)
        value = builder.select(builder.fcmp_ordered(">", value, other), value, other)
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))


@intrinsic
def copy(typing, target, i, source, j):  # type: ignore[no-untyped-def]
    """target[i:i+8] = source[j:j+8]."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        target_type, _, source_type, _ = signature.args
        target, i, source, j = arguments
        _store(context, builder, target_type, target, i, _load(context, builder, source_type, source, j))
        return context.get_dummy_value()

    return types.void(target, i, source, j), generate


@intrinsic
def add(typing, target, i, source, j, factor):  # type: ignore[no-untyped-def]
    """target[i:i+8] += factor * source[j:j+8]."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        target_type, _, source_type, _, _ = signature.args
        target, i, source, j, factor = arguments
        value = _load(context, builder, source_type, source, j)
        total = _load(context, builder, target_type, target, i)
        total = _multiply_add(builder, value, _spread(builder, factor), total)
        _store(context, builder, target_type, target, i, total)
        return context.get_dummy_value()

    return types.void(target, i, source, j, types.float32), generate


@intrinsic
def accumulate(typing, target, i, source, j):  # type: ignore[no-untyped-def]
    """target[i:i+8] += source[j:j+8]; gives the largest absolute value of the source."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        target_type, _, source_type, _ = signature.args
        target, i, source, j = arguments
        value = _load(context, builder, source_type, source, j)
        _store(
            context,
            builder,
            target_type,
            target,
            i,
            builder.fadd(_load(context, builder, target_type, target, i), value),
        )
        return _peak(builder, value)

    return types.float32(target, i, source, j), generate


@intrinsic
def difference(typing, target, i, new, j, old):  # type: ignore[no-untyped-def]
    """target[i:i+8] = new[j:j+8] - old[i:i+8]; gives the largest absolute difference."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        target_type, _, new_type, _, old_type = signature.args
        target, i, new, j, old = arguments
        value = builder.fsub(_load(context, builder, new_type, new, j), _load(context, builder, old_type, old, i))
        _store(context, builder, target_type, target, i, value)
        return _peak(builder, value)

    return types.float32(target, i, new, j, old), generate


@intrinsic
def smooth(typing, values, here, after, before, k):  # type: ignore[no-untyped-def]
    """values[here] += (before[k] + values[after]) / 2, each of eight; before[k:k+8] becomes the old values[here]."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        values_type, _, _, before_type, _ = signature.args
        values, here, after, before, k = arguments
        old = _load(context, builder, values_type, values, here)
        next_ = _load(context, builder, values_type, values, after)
        sides = builder.fadd(next_, _load(context, builder, before_type, before, k))
        half = ir.Constant(_FLOATS, [0.5] * LANES)
        _store(context, builder, values_type, values, here, _multiply_add(builder, sides, half, old))
        _store(context, builder, before_type, before, k, old)
        return context.get_dummy_value()

    return types.void(values, here, after, before, k), generate


@intrinsic(prefer_literal=True)
def gather(typing, target, i, source, corners, weights, start, count, stride, offset):  # type: ignore[no-untyped-def]
    """target[i:i+8] += sum over r < count of weights[start+r] * source[corners[start+r]*stride + offset:][:8].

    `count` is a literal.
    """
    length = count.literal_value

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        target_type, _, source_type, corners_type, weights_type = signature.args[:5]
        target, i, source, corners, weights, start, _, stride, offset = arguments
        corner_data = context.make_array(corners_type)(context, builder, corners).data
        weight_data = context.make_array(weights_type)(context, builder, weights).data
        total = _load(context, builder, target_type, target, i)
        for r in range(length):
            entry = builder.add(start, ir.Constant(ir.IntType(64), r))
            corner = builder.zext(builder.load(builder.gep(corner_data, [entry])), ir.IntType(64))
            value = _load(context, builder, source_type, source, builder.add(builder.mul(corner, stride), offset))
            weight = _spread(builder, builder.load(builder.gep(weight_data, [entry])))
            total = _multiply_add(builder, value, weight, total)
        _store(context, builder, target_type, target, i, total)
        return context.get_dummy_value()

    return types.void(target, i, source, corners, weights, start, count, stride, offset), generate


@intrinsic
def lowest_bit(typing, bits):  # type: ignore[no-untyped-def]
    """Number of the lowest bit that is set; `bits` is not 0."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
def as_float(typing, bits):  # type: ignore[no-untyped-def]
    """The float32 with these bits."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate
