"""Quantized tensors and stored constants of ML programs, against numbers by hand and coremltools' own inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgevit.verification.divergence import first_divergence
from edgevit.verification.mil import read_program
from edgevit.verification.mil.operators.packing import unpack
from support.ml_programs import X, assert_close, evaluate, few_examples, saved
from support.nets import image

pytestmark = pytest.mark.coreml


def constant(mb: Any, v: Any, value: Any) -> Any:
    """Return a sum of zeros and a stored constant, as a value of the program."""
    return mb.add(x=mb.mul(x=v, y=np.float32(0)), y=value)


def zeros(array: NDArray[Any]) -> torch.Tensor:
    return torch.zeros(array.shape)


def narrow(numbers: NDArray[Any], name: str) -> NDArray[Any]:
    """Return numbers in a type of coremltools' that is narrower than a byte."""
    from coremltools.converters.mil.mil import types

    return numbers.astype(types.nptype_from_builtin(types.string_to_builtin(name)))


def test_steps_are_rounded_to_even_and_clipped_by_the_type(ct: Any, tmp_path: Path) -> None:
    x = torch.tensor([[-1.0, -0.25, 0.25, 0.75, 100.0, -100.0]])

    def build(mb: Any, v: Any) -> Any:
        signed = mb.quantize(input=v, scale=np.float32(0.5), zero_point=np.int8(3), output_dtype="int8")
        unsigned = mb.quantize(input=v, scale=np.float32(0.5), output_dtype="uint8")
        return (
            mb.dequantize(input=signed, scale=np.float32(1)),
            mb.dequantize(input=unsigned, scale=np.float32(1)),
            mb.dequantize(input=signed, scale=np.float32(0.5), zero_point=np.int8(3)),
        )

    signed, unsigned, values = evaluate(saved(tmp_path, build, x), x)
    assert signed.tolist() == [[1, 3, 3, 5, 127, -128]]
    assert unsigned.tolist() == [[0, 0, 0, 2, 200, 0]]
    assert values.tolist() == [[-1.0, 0.0, 0.0, 1.0, 62.0, -65.5]]


@few_examples
@given(data=st.data())
def test_quantization_of_tensors(ct: Any, tmp_path: Path, data: st.DataObject) -> None:
    """With scales for a tensor or along an axis, of both types, as coremltools infers them."""
    dtype = data.draw(st.sampled_from([np.int8, np.uint8]))
    axis = data.draw(st.sampled_from([None, 0, 1, -1]))
    size = () if axis is None else (X.shape[axis],)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    scale = random.uniform(0.01, 0.1, size).astype(np.float32)
    ends = np.iinfo(dtype)
    zero_point = random.integers(ends.min, ends.max, size).astype(dtype) if data.draw(st.booleans()) else None
    options: dict[str, Any] = {"scale": scale, "zero_point": zero_point, "axis": axis}
    expected = []

    def build(mb: Any, v: Any) -> Any:
        known = mb.quantize(input=X.numpy(), output_dtype=np.dtype(dtype).name, **options)
        steps = mb.quantize(input=v, output_dtype=np.dtype(dtype).name, **options)
        values = mb.dequantize(input=steps, **options)
        expected.append(known.val)
        expected.append(mb.dequantize(input=known.val, **options).op.materialized_val_inference())
        return mb.cast(x=steps, dtype="int32"), values

    steps, values = evaluate(saved(tmp_path, build, X), X)
    np.testing.assert_array_equal(steps, expected[0])
    assert_close(values, expected[1], 1e-6)


@few_examples
@given(data=st.data())
def test_affine_constants(ct: Any, tmp_path: Path, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([np.int8, np.uint8]))
    axis = data.draw(st.sampled_from([0, 1, -1]))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    steps = random.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (4, 3, 5), endpoint=True).astype(dtype)
    size = data.draw(st.sampled_from([(), (steps.shape[axis],)]))
    scale = random.uniform(0.01, 0.1, size).astype(np.float32)
    of_zero = data.draw(st.sampled_from([dtype, np.float32]))
    zero_point = random.integers(0, 100, size).astype(of_zero)
    expected = []

    def build(mb: Any, v: Any) -> Any:
        value = mb.constexpr_affine_dequantize(
            quantized_data=steps, zero_point=zero_point, scale=scale, axis=np.int32(axis)
        )
        expected.append(value.op.materialized_val_inference())
        return constant(mb, v, value)

    (values,) = evaluate(saved(tmp_path, build, zeros(steps)), zeros(steps))
    assert_close(values, expected[0], 1e-6)
    by_hand = steps.astype("f8") - zero_point.reshape([-1 if i == axis % 3 else 1 for i in range(3)] if size else ())
    assert_close(values, by_hand * scale.reshape([-1 if i == axis % 3 else 1 for i in range(3)] if size else ()), 1e-6)


@pytest.mark.parametrize("name", ["int8", "uint8", "int4", "uint4"])
@pytest.mark.parametrize("has_offset", [False, True])
def test_constants_in_blocks(ct: Any, tmp_path: Path, name: str, has_offset: bool) -> None:
    """Each number has the scale of its block; types of 4 bits are packed, in the file and in place."""
    random = np.random.default_rng(1)
    low, high = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15)}[name]
    steps = narrow(random.integers(low, high, (4, 6, 3), endpoint=True), name)
    scale = random.uniform(0.01, 0.1, (2, 1, 3)).astype(np.float32)
    offset = narrow(random.integers(low, high, (2, 1, 3), endpoint=True), name) if has_offset else None
    expected = []

    def build(mb: Any, v: Any) -> Any:
        large = mb.constexpr_blockwise_shift_scale(data=steps, scale=scale, offset=offset)
        small = mb.constexpr_blockwise_shift_scale(data=steps[:1, :1], scale=scale[:1])
        expected.append(large.op.materialized_val_inference())
        return mb.add(x=constant(mb, v, large), y=mb.mul(x=small, y=np.float32(1000)))

    (values,) = evaluate(saved(tmp_path, build, zeros(steps), system="iOS18"), zeros(steps))
    by_hand = steps.astype("f8") - (0 if offset is None else np.repeat(offset.astype("f8"), 2, 0))
    by_hand *= np.repeat(scale.astype("f8"), 2, 0)
    assert_close(expected[0], by_hand, 1e-6)
    assert_close(values, by_hand + 1000 * scale[:1].astype("f8") * steps[:1, :1], 1e-6)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_one_table(ct: Any, tmp_path: Path, bits: int) -> None:
    """Until iOS 17 the indices are bytes, into which they are packed without gaps."""
    from coremltools.optimize import _utils

    random = np.random.default_rng(1)
    indices = random.integers(0, 2**bits, (3, 5, 7)).astype(np.uint8)
    lut = random.normal(size=2**bits).astype(np.float32)
    packed = _utils.pack_elements_into_bits(indices, bits)
    expected = []

    def build(mb: Any, v: Any) -> Any:
        value = mb.constexpr_lut_to_dense(indices=packed, lut=lut, shape=np.array(indices.shape, np.uint32))
        expected.append(value.op.materialized_val_inference())
        return constant(mb, v, value)

    (values,) = evaluate(saved(tmp_path, build, zeros(indices)), zeros(indices))
    np.testing.assert_array_equal(values, lut[indices])
    np.testing.assert_array_equal(values, expected[0])


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_tables_for_groups(ct: Any, tmp_path: Path, bits: int) -> None:
    random = np.random.default_rng(1)
    indices = random.integers(0, 2**bits, (9, 5, 5))
    lut = random.normal(size=(3, 1, 5, 2**bits, 1)).astype(np.float32)

    def build(mb: Any, v: Any) -> Any:
        value = mb.constexpr_lut_to_dense(indices=narrow(indices, f"uint{bits}"), lut=lut)
        return constant(mb, v, value)

    (values,) = evaluate(saved(tmp_path, build, zeros(indices), system="iOS18"), zeros(indices))
    for i, j, k in np.ndindex(indices.shape):
        assert values[i, j, k] == lut[i // 3, 0, k, indices[i, j, k], 0]


def test_tables_of_vectors(ct: Any, tmp_path: Path) -> None:
    """Cases 2.1 and 2.2 of coremltools' documentation of the operator."""
    indices = np.array([[[0, 0], [1, 0]], [[1, 1], [0, 0]]])
    lut = np.array([1.0, 2, 3, 10, 20, 30], np.float32).reshape(1, 1, 1, 2, 3)

    def build(mb: Any, v: Any, w: Any) -> Any:
        options = {"indices": narrow(indices, "uint1"), "lut": lut}
        first = mb.constexpr_lut_to_dense(vector_axis=np.int32(1), **options)
        return constant(mb, v, first), constant(mb, w, mb.constexpr_lut_to_dense(vector_axis=np.int32(-1), **options))

    inputs = torch.zeros(2, 6, 2), torch.zeros(2, 2, 6)
    rows, columns = evaluate(saved(tmp_path, build, *inputs, system="iOS18"), *inputs)
    assert rows[0].tolist() == [[1, 1], [2, 2], [3, 3], [10, 1], [20, 2], [30, 3]]
    assert rows[1].tolist() == [[10, 10], [20, 20], [30, 30], [1, 1], [2, 2], [3, 3]]
    assert columns[0].tolist() == [[1, 2, 3, 1, 2, 3], [10, 20, 30, 1, 2, 3]]
    assert columns[1].tolist() == [[10, 20, 30, 10, 20, 30], [1, 2, 3, 1, 2, 3]]


def test_numbers_that_are_not_there_are_an_error() -> None:
    with pytest.raises(ValueError, match="1 bytes do not hold 2 numbers of 6 bits"):
        unpack(np.zeros(1, np.uint8), 6, 2)


def stored(folder: Path) -> Path:
    """Save a package with a constant (4, 15) in int8."""
    steps = np.arange(60, dtype=np.int8).reshape(4, 15)

    def build(mb: Any, v: Any) -> Any:
        scale, axis = np.float32(0.5), np.int32(0)
        value = mb.constexpr_affine_dequantize(quantized_data=steps, zero_point=np.int8(0), scale=scale, axis=axis)
        return constant(mb, v, value)

    return saved(folder, build, zeros(steps))


def test_stored_constants_stay_as_small_as_in_the_file(ct: Any, tmp_path: Path) -> None:
    constants = read_program(stored(tmp_path)).constants.values()
    assert [value.dtype for value in constants if getattr(value, "shape", ()) == (4, 15)] == [torch.int8]


def test_bytes_of_another_type_than_declared_are_refused(ct: Any, tmp_path: Path) -> None:
    path = stored(tmp_path)
    weights = path / "Data/com.apple.CoreML/weights/weight.bin"
    record = bytes.fromhex("efbeadde 04000000")
    assert weights.read_bytes().count(record) == 1
    weights.write_bytes(weights.read_bytes().replace(record, record[:4] + b"\3\0\0\0"))
    with pytest.raises(ValueError, match=r"weight.bin holds no int8 of \[4, 15\]"):
        read_program(path)


def test_a_step_that_went_the_other_way_is_no_divergence(ct: Any, tmp_path: Path) -> None:
    """Half precision moves a number across the middle between two steps; an overflow behind it is found."""
    x = 0.5 + 1e-4 * image(2, 6, dtype=torch.float32).sign()

    def build(mb: Any, v: Any) -> Any:
        moved = mb.mul(x=v, y=np.float16(1.0))
        steps = mb.quantize(input=mb.add(x=moved, y=np.float16(8)), scale=np.float16(1), output_dtype="int8")
        values = mb.dequantize(input=steps, scale=np.float16(1), name="values")
        return mb.mul(x=values, y=np.float16(30000), name="large")

    divergence = first_divergence(saved(tmp_path, build, x, half=True), [x])
    assert divergence is not None
    assert (divergence.kind, divergence.operation.name) == ("overflow", "large")
