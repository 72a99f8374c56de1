"""The reference evaluator of ML programs: operator by operator against torch and against coremltools' own inference."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import weakref
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # as everybody calls it
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.devices.worker_archive import pack_recipe
from edgevit.exporting.convert import convert
from edgevit.folding import fold
from edgevit.recipes import evaluator_source, load_recipe
from edgevit.verification.divergence import first_divergence
from edgevit.verification.mil import OPERATORS, load, read_program, run_program, trace
from edgevit_runtime.record import UnsupportedError
from support.nets import Toy, image

pytestmark = pytest.mark.coreml
RECIPE = load_recipe("coreml")
EXAMPLES = int(os.environ.get("EDGEVIT_EXAMPLES", "8"))  # of each operator; `make test-all` tries more
some = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = itertools.count()


@pytest.fixture(scope="module")
def ct() -> Any:
    with RECIPE._quiet():  # type: ignore[attr-defined]  # what coremltools says when it is imported
        return pytest.importorskip("coremltools")


def saved(folder: Path, build: Callable[..., Any], *inputs: Tensor, half: bool = False) -> Path:
    """Save a package of the operators that `build(mb, *inputs)` adds, none of them rewritten."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    names = [f"in_{i}" for i in range(len(inputs))]
    dtype = types.fp16 if half else types.fp32
    specs = [mb.TensorSpec(tuple(tensor.shape), dtype=dtype) for tensor in inputs]
    program = mb.program(input_specs=specs, opset_version=ct.target.iOS17)(_named(names, lambda *a: build(mb, *a)))
    path = folder / f"{next(numbers)}.mlpackage"
    with RECIPE._quiet():  # type: ignore[attr-defined]
        nothing = ct.PassPipeline.EMPTY
        package = ct.convert(program, convert_to="mlprogram", pass_pipeline=nothing, skip_model_load=True,
                          minimum_deployment_target=ct.target.iOS17)  # fmt: skip
        package.save(str(path))
    return path


def _named(names: list[str], function: Callable[..., Any]) -> Any:
    """Name the function's arguments, from which mb.program reads the names of the inputs."""
    arguments = ", ".join(names)
    return eval(f"lambda {arguments}: function({arguments})", {"function": function})  # noqa: S307


def evaluate(path: Path, *inputs: Tensor) -> list[np.ndarray]:
    """Run a package through load(), as the worker does."""
    session = load(path, threads=1)
    arrays = [tensor.numpy().astype(spec.dtype) for tensor, spec in zip(inputs, session.inputs, strict=True)]
    session.feed([np.ascontiguousarray(tensor).tobytes() for tensor in arrays], 1)
    session.run()
    pairs = zip(session.fetch(), session.outputs, strict=True)
    return [np.frombuffer(raw, spec.dtype).reshape(spec.shape) for raw, spec in pairs]


def assert_close(computed: np.ndarray, expected: Tensor | np.ndarray, limit: float = 1e-5) -> None:
    reference = np.asarray(expected)
    assert computed.shape == reference.shape
    assert np.abs(computed.astype("f8") - reference.astype("f8")).max() <= limit * max(np.abs(reference).max(), 1e-3)


# ---- layers against torch ----------------------------------------------------------------------------------------


@some
@given(data=st.data())
def test_convolutions(ct: Any, tmp_path: Path, data: st.DataObject) -> None:
    draw = data.draw
    rank, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4]))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    stride = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilation = [draw(st.integers(1, 2)) for _ in range(rank)]
    pad = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    x = image(2, 4, *(draw(st.integers(5, 8)) for _ in range(rank)), dtype=torch.float32)
    weight, bias = image(8, 4 // groups, *kernel, seed=2, dtype=torch.float32), image(8, seed=3, dtype=torch.float32)
    options = {"strides": stride, "dilations": dilation, "groups": groups}
    path = saved(tmp_path, lambda mb, v: (
        mb.conv(x=v, weight=weight.numpy(), bias=bias.numpy(), pad_type="custom", pad=pad, **options),
        mb.conv(x=v, weight=weight.numpy(), pad_type="valid", **options),
        mb.conv(x=v, weight=weight.numpy(), pad_type="same", **options | {"strides": [1] * rank}),
        mb.conv(x=v, weight=weight.numpy(), pad_type="same_lower", **options | {"strides": [1] * rank}),
    ), x)  # fmt: skip
    custom, valid, same, lower = evaluate(path, x)
    operator = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    sides = [side for i in reversed(range(rank)) for side in pad[2 * i : 2 * i + 2]]
    assert_close(custom, operator(F.pad(x, sides), weight, bias, stride, 0, dilation, groups))
    assert_close(valid, operator(x, weight, None, stride, 0, dilation, groups))
    spare = [(size - 1) * step for size, step in zip(reversed(kernel), reversed(dilation), strict=True)]
    for padding, more in (
        (same, 0),
        (lower, 1),
    ):  # where one element is left over, it goes to the end, or the beginning
        sides = [side for total in spare for side in ((total + more) // 2, (total + 1 - more) // 2)]
        assert_close(padding, operator(F.pad(x, sides), weight, None, 1, 0, dilation, groups))


def test_a_stride_pads_only_what_the_last_window_needs(ct: Any, tmp_path: Path) -> None:
    """7 pixels in steps of 2 begin at -1, 8 at 0: the windows of 3 end with the picture."""
    weight, x = torch.tensor([[[1.0, 10.0, 100.0]]]), torch.arange(1.0, 8.0).reshape(1, 1, 7)
    for sample, expected in (
        (x, [210.0, 432.0, 654.0, 76.0]),
        (F.pad(x, (0, 1), value=8.0), [321.0, 543.0, 765.0, 87.0]),
    ):
        path = saved(tmp_path, lambda mb, v: mb.conv(x=v, weight=weight.numpy(), pad_type="same", strides=[2]), sample)
        assert evaluate(path, sample)[0].ravel().tolist() == expected


@some
@given(data=st.data())
def test_transposed_convolutions(ct: Any, tmp_path: Path, data: st.DataObject) -> None:
    draw = data.draw
    rank, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2]))
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    stride = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilation = [draw(st.integers(1, 2)) for _ in range(rank)]
    pad = [draw(st.integers(0, 1)) for _ in range(rank)]
    extra = [draw(st.integers(0, s - 1)) for s in stride]
    x = image(1, 4, *(draw(st.integers(4, 6)) for _ in range(rank)), dtype=torch.float32)
    weight, bias = image(4, 3, *kernel, seed=2, dtype=torch.float32), image(3 * groups, seed=3, dtype=torch.float32)
    operator = (F.conv_transpose1d, F.conv_transpose2d)[rank - 1]
    assume(all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)))
    expected = operator(x, weight, bias, stride, pad, 0, groups, dilation)
    larger = operator(x, weight, bias, stride, pad, extra, groups, dilation)
    both = [side for size in pad for side in (size, size)]
    options = {
        "weight": weight.numpy(),
        "bias": bias.numpy(),
        "strides": stride,
        "dilations": dilation,
        "groups": groups,
    }
    path = saved(tmp_path, lambda mb, v: (
        mb.conv_transpose(x=v, pad_type="custom", pad=both, **options),
        mb.conv_transpose(x=v, pad_type="custom", pad=both, output_shape=list(larger.shape), **options),
    ), x)  # fmt: skip
    plain, shaped = evaluate(path, x)
    assert_close(plain, expected)
    assert_close(shaped, larger)


@some
@given(data=st.data())
def test_pooling(ct: Any, tmp_path: Path, data: st.DataObject) -> None:
    draw = data.draw
    rank, ceil = draw(st.integers(1, 2)), draw(st.booleans())
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    stride = [draw(st.integers(1, 3)) for _ in range(rank)]
    pad = [draw(st.integers(0, size // 2)) for size in kernel]
    x = image(1, 2, *(draw(st.integers(6, 9)) for _ in range(rank)), dtype=torch.float32)
    both = [side for size in pad for side in (size, size)]
    options = {"kernel_sizes": kernel, "strides": stride, "pad_type": "custom", "pad": both, "ceil_mode": ceil}
    largest = (F.max_pool1d, F.max_pool2d)[rank - 1](x, kernel, stride, pad, ceil_mode=ceil)
    average = (F.avg_pool1d, F.avg_pool2d)[rank - 1]
    means = [average(x, kernel, stride, pad, ceil, with_pad) for with_pad in (True, False)]
    # Without padding, torch drops a window that would begin behind the input; coremltools declares one more.
    assume(
        not ceil
        or all(
            ((n + 2 * p - k) // -s) * -s < n + p for n, p, k, s in zip(x.shape[2:], pad, kernel, stride, strict=True)
        )
    )
    path = saved(tmp_path, lambda mb, v: (
        mb.max_pool(x=v, **options),
        mb.avg_pool(x=v, **options),
        mb.avg_pool(x=v, exclude_padding_from_average=True, **options),
    ), x)  # fmt: skip
    for computed, expected in zip(evaluate(path, x), (largest, *means), strict=True):
        assert_close(computed, expected)


X = image(2, 4, 5, 6, dtype=torch.float32)
C4, C4B = image(4, seed=5, dtype=torch.float32), image(4, seed=6, dtype=torch.float32)
POSITIVE = C4.abs() + 0.5
MATRIX = image(3, 6, seed=7, dtype=torch.float32)
LAST = image(6, seed=8, dtype=torch.float32)
ROW = image(3, seed=9, dtype=torch.float32)
INDEX = np.array([[2, 0], [3, 1]], np.int32)


def n(tensor: Tensor) -> np.ndarray:
    return tensor.numpy()


# Operators that coremltools itself cannot compute, against torch: what is built, and what it should be.
LAYERS: dict[str, tuple[Callable[..., Any], Callable[[Tensor], Tensor]]] = {
    "linear": (lambda mb, v: mb.linear(x=v, weight=n(MATRIX), bias=n(ROW)), lambda x: F.linear(x, MATRIX, ROW)),
    "batch_norm": (
        lambda mb, v: mb.batch_norm(x=v, mean=n(C4), variance=n(POSITIVE), gamma=n(C4B), beta=n(C4), epsilon=1e-3),
        lambda x: F.batch_norm(x, C4, POSITIVE, C4B, C4, eps=1e-3),
    ),
    "instance_norm": (
        lambda mb, v: mb.instance_norm(x=v, gamma=n(C4B), beta=n(C4), epsilon=1e-3),
        lambda x: F.instance_norm(x, weight=C4B, bias=C4, eps=1e-3),
    ),
    "layer_norm": (
        lambda mb, v: mb.layer_norm(x=v, axes=[-1], gamma=n(LAST), beta=n(LAST), epsilon=1e-3),
        lambda x: F.layer_norm(x, (6,), LAST, LAST, 1e-3),
    ),
    "layer_norm of two axes": (
        lambda mb, v: mb.layer_norm(x=v, axes=[2, 3], epsilon=1e-3), lambda x: F.layer_norm(x, (5, 6), eps=1e-3),
    ),
    "l2_norm": (
        lambda mb, v: mb.l2_norm(x=v, epsilon=1e-3), lambda x: x / (x.square().sum((1, 2, 3), True) + 1e-3).sqrt(),
    ),
    "softmax": (lambda mb, v: mb.softmax(x=v, axis=1), lambda x: x.softmax(1)),
    "gelu": (lambda mb, v: mb.gelu(x=v, mode="EXACT"), F.gelu),
    "gelu tanh": (lambda mb, v: mb.gelu(x=v, mode="TANH_APPROXIMATION"), lambda x: F.gelu(x, approximate="tanh")),
    "gelu sigmoid": (lambda mb, v: mb.gelu(x=v, mode="SIGMOID_APPROXIMATION"), lambda x: x * (1.702 * x).sigmoid()),
    "silu": (lambda mb, v: mb.silu(x=v), F.silu),
    "softplus": (lambda mb, v: mb.softplus(x=v), F.softplus),
    "softsign": (lambda mb, v: mb.softsign(x=v), F.softsign),
    "sigmoid_hard": (lambda mb, v: mb.sigmoid_hard(x=v, alpha=1 / 6, beta=0.5), F.hardsigmoid),
    "elu": (lambda mb, v: mb.elu(x=v, alpha=0.7), lambda x: F.elu(x, 0.7)),
    "prelu": (lambda mb, v: mb.prelu(x=v, alpha=n(C4)), lambda x: F.prelu(x, C4)),
    "clamped_relu": (
        lambda mb, v: mb.clamped_relu(x=v, alpha=0.2, beta=0.8), lambda x: F.leaky_relu(x, 0.2).clamp(max=0.8),
    ),
    "scaled_tanh": (lambda mb, v: mb.scaled_tanh(x=v, alpha=2.0, beta=0.5), lambda x: 2 * (x * 0.5).tanh()),
    "thresholded_relu": (lambda mb, v: mb.thresholded_relu(x=v, alpha=0.3), lambda x: F.threshold(x, 0.3, 0.0)),
    "upsample_nearest_neighbor": (
        lambda mb, v: mb.upsample_nearest_neighbor(x=v, scale_factor_height=2, scale_factor_width=3),
        lambda x: F.interpolate(x, scale_factor=(2, 3), mode="nearest"),
    ),
    "upsample_bilinear": (
        lambda mb, v: mb.upsample_bilinear(x=v, scale_factor_height=2, scale_factor_width=3, align_corners=False),
        lambda x: F.interpolate(x, scale_factor=(2, 3), mode="bilinear", align_corners=False),
    ),
    "upsample_bilinear aligned": (
        lambda mb, v: mb.upsample_bilinear(x=v, scale_factor_height=2, scale_factor_width=3, align_corners=True),
        lambda x: F.interpolate(x, scale_factor=(2, 3), mode="bilinear", align_corners=True),
    ),
    "resize_bilinear": (
        lambda mb, v: mb.resize_bilinear(
            x=v, target_size_height=7, target_size_width=4, sampling_mode="UNALIGN_CORNERS"
        ),
        lambda x: F.interpolate(x, (7, 4), mode="bilinear", align_corners=False),
    ),
    "resize_bilinear aligned": (
        lambda mb, v: mb.resize_bilinear(
            x=v, target_size_height=7, target_size_width=4, sampling_mode="STRICT_ALIGN_CORNERS"
        ),
        lambda x: F.interpolate(x, (7, 4), mode="bilinear", align_corners=True),
    ),
    "pixel_shuffle": (lambda mb, v: mb.pixel_shuffle(x=v, upscale_factor=2), lambda x: F.pixel_shuffle(x, 2)),
    "pixel_unshuffle": (
        lambda mb, v: mb.pixel_unshuffle(x=mb.pixel_shuffle(x=v, upscale_factor=2), downscale_factor=np.uint32(2)),
        lambda x: x,
    ),
    "space_to_depth": (
        lambda mb, v: mb.space_to_depth(x=mb.depth_to_space(x=v, block_size=2), block_size=2), lambda x: x,
    ),
    "einsum": (
        lambda mb, v: mb.einsum(values=(v, mb.transpose(x=v, perm=[0, 3, 2, 1])), equation="nchw,nwhr->nchr"),
        lambda x: torch.einsum("nchw,nwhr->nchr", x, x.permute(0, 3, 2, 1)),
    ),
    "relu6": (lambda mb, v: mb.relu6(x=mb.mul(x=v, y=v)), lambda x: F.relu6(x * x)),
    "softplus_parametric": (
        lambda mb, v: mb.softplus_parametric(x=v, alpha=n(C4), beta=n(POSITIVE)),
        lambda x: C4[:, None, None] * F.softplus(x * POSITIVE[:, None, None]),
    ),
    "l2_pool": (
        lambda mb, v: mb.l2_pool(x=v, kernel_sizes=[2, 3], strides=[1, 2], pad_type="valid"),
        lambda x: F.lp_pool2d(x, 2.0, (2, 3), (1, 2)),
    ),
    "reduce_log_sum": (
        lambda mb, v: mb.reduce_log_sum(x=mb.exp(x=v), axes=[1], keep_dims=True), lambda x: x.logsumexp(1, True),
    ),
    "fill_like": (
        lambda mb, v: mb.mul(x=v, y=mb.fill_like(ref_tensor=mb.cast(x=v, dtype="int32"), value=np.float32(0.3)))
        if v.dtype.__name__ == "fp32" else mb.mul(x=v, y=np.float16(0.3)), lambda x: x * 0.3,
    ),
    "gather_nd": (lambda mb, v: mb.gather_nd(x=v, indices=INDEX % 2), lambda x: x[[0, 1], [0, 1]]),
    "cumsum": (
        lambda mb, v: mb.cumsum(x=v, axis=2, exclusive=True, reverse=True),
        lambda x: x.flip(2).cumsum(2).flip(2) - x,
    ),
    "one_hot": (
        lambda mb, v: mb.mul(x=mb.slice_by_size(
            x=v, begin=[0, 0, 0, 0], size=[2, 2, 5, 2]), y=mb.cast(x=mb.one_hot(
                indices=INDEX, one_hot_vector_size=5, axis=1, on_value=3, off_value=-1),
                dtype=v.dtype.__name__)),
        lambda x: x[:, :2, :5, :2] * (4 * F.one_hot(torch.from_numpy(INDEX).long(), 5).movedim(2, 1) - 1),
    ),
    "concat interleaved": (
        lambda mb, v: mb.concat(values=(v, mb.relu(x=v)), axis=1, interleave=True),
        lambda x: torch.stack([x, x.relu()], 2).flatten(1, 2),
    ),
    "matmul": (lambda mb, v: mb.matmul(x=v, y=v, transpose_x=True), lambda x: x.mT @ x),
    "batched gather": (
        lambda mb, v: mb.gather(x=v, indices=np.array([[0, 3], [2, 1]], np.int32), axis=1, batch_dims=1),
        lambda x: torch.stack([x[0, [0, 3]], x[1, [2, 1]]]),
    ),
}  # fmt: skip

MOVES = {
    "space_to_depth",
    "batched gather",
    "pixel_shuffle",
    "pixel_unshuffle",
    "thresholded_relu",
    "gather_nd",
    "one_hot",
    "concat interleaved",
    "upsample_nearest_neighbor",
}  # and round nothing


@pytest.fixture(scope="module")
def layers(ct: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    """Name -> what it gives in float32 and in float16; of one program each, as each conversion takes a second."""
    folder = tmp_path_factory.mktemp("layers")

    def all_of(mb: Any, x: Any) -> Any:
        return tuple(build(mb, x) for build, _ in LAYERS.values())

    results = [evaluate(saved(folder, all_of, X, half=half), X) for half in (False, True)]
    return {name: list(pair) for name, pair in zip(LAYERS, zip(*results, strict=True), strict=True)}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_both_precisions(layers: dict[str, list[np.ndarray]], name: str) -> None:
    computed, halved = layers[name]
    compute = LAYERS[name][1]
    assert_close(computed, compute(X))
    assert halved.dtype == np.float16
    expected = compute(X.half().float())
    assert_close(halved, expected, 4e-3)  # weights too are rounded to 2^-11
    assert np.abs(halved.astype("f4") - n(expected)).max() > 0 or name in MOVES


# ---- everything else against coremltools' inference --------------------------------------------------------------

V = X.numpy()
BOOL = V > 0
INFERRED: dict[str, Callable[[Any], Any]] = {
    **{name: (lambda mb, name=name: getattr(mb, name)(x=V)) for name in (
        "abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor", "relu", "round", "sigmoid", "sign", "sin",
        "sinh", "square", "tan", "tanh")},
    **{name: (lambda mb, name=name: getattr(mb, name)(x=V.clip(-0.9, 0.9))) for name in ("acos", "asin", "atanh")},
    **{name: (lambda mb, name=name: getattr(mb, name)(x=np.abs(V) + 0.1)) for name in (
        "sqrt", "log", "rsqrt", "inverse")},
    **{name: (lambda mb, name=name: getattr(mb, name)(x=V, y=V[::-1, :, ::-1].copy())) for name in (
        "add", "sub", "mul", "real_div", "maximum", "minimum", "floor_div", "mod", "equal", "not_equal", "greater",
        "greater_equal", "less", "less_equal")},
    **{name: (lambda mb, name=name: getattr(mb, name)(x=BOOL, y=BOOL[::-1].copy())) for name in (
        "logical_and", "logical_or", "logical_xor")},
    **{name: (lambda mb, name=name: getattr(mb, name)(x=V, axes=[1, -1], keep_dims=False)) for name in (
        "reduce_max", "reduce_min", "reduce_mean", "reduce_sum", "reduce_prod", "reduce_l1_norm", "reduce_l2_norm",
        "reduce_sum_square", "reduce_log_sum_exp")},
    "reduce kept": lambda mb: mb.reduce_sum(x=V, axes=[2], keep_dims=True),
    "reduce all": lambda mb: mb.reduce_mean(x=V, keep_dims=True),
    "reduce_argmax": lambda mb: mb.reduce_argmax(x=V, axis=1),
    "reduce_argmin": lambda mb: mb.reduce_argmin(x=V, axis=-1, keep_dims=True),
    "pow": lambda mb: mb.pow(x=np.abs(V), y=np.float32(1.5)),
    "clip": lambda mb: mb.clip(x=V, alpha=-0.5, beta=0.25),
    "threshold": lambda mb: mb.threshold(x=V, alpha=0.1),
    "leaky_relu": lambda mb: mb.leaky_relu(x=V, alpha=0.1),
    "logical_not": lambda mb: mb.logical_not(x=BOOL),
    "select": lambda mb: mb.select(cond=BOOL, a=V, b=-2 * V),
    "reshape": lambda mb: mb.reshape(x=V, shape=[2, -1, 10]),
    "transpose": lambda mb: mb.transpose(x=V, perm=[0, -1, 1, 2]),
    "expand_dims": lambda mb: mb.expand_dims(x=V[0], axes=[0, -1]),
    "squeeze": lambda mb: mb.squeeze(x=V[:1, :, :1]),
    "squeeze one": lambda mb: mb.squeeze(x=V[:1, :, :1], axes=[2]),
    "tile": lambda mb: mb.tile(x=V, reps=[1, 2, 1, 3]),
    "concat": lambda mb: mb.concat(values=(V, V[:, :1], V), axis=1),
    "stack": lambda mb: mb.stack(values=(V, -V), axis=1),
    "slice_by_size": lambda mb: mb.slice_by_size(x=V, begin=[0, 1, 2, 0], size=[2, 2, -1, 6]),
    "gather": lambda mb: mb.gather(x=V, indices=INDEX, axis=1),
    "gather from the end": lambda mb: mb.gather(x=V, indices=-INDEX - 1, axis=-1),
    "gather_along_axis": lambda mb: mb.gather_along_axis(x=V[0, :2, :2, 0], indices=INDEX % 2, axis=1),
    "pad": lambda mb: mb.pad(x=V, pad=[1, 2, 0, 3], mode="constant", constant_val=0.5),
    "pad reflect": lambda mb: mb.pad(x=V, pad=[1, 2, 0, 3], mode="reflect"),
    "pad replicate": lambda mb: mb.pad(x=V, pad=[1, 2, 0, 3], mode="replicate"),
    "reverse": lambda mb: mb.reverse(x=V, axes=[1, 3]),
    "topk": lambda mb: mb.topk(x=V, k=2, axis=-1, ascending=False),
    "topk smallest": lambda mb: mb.topk(x=V, k=2, axis=1, ascending=True),
    "argsort": lambda mb: mb.argsort(x=V, axis=-1, ascending=True),
    "band_part": lambda mb: mb.band_part(x=V, lower=1, upper=2),
    "fill": lambda mb: mb.fill(shape=[2, 3], value=1.5),
    "range_1d": lambda mb: mb.range_1d(start=1, end=11, step=3),
    "shape": lambda mb: mb.shape(x=V),
    "cast": lambda mb: mb.cast(x=V * 3, dtype="int32"),
    "cast to bool": lambda mb: mb.cast(x=np.sign(V), dtype="bool"),
    "cast to half": lambda mb: mb.cast(x=V * 1e4, dtype="fp16"),
    "identity": lambda mb: mb.identity(x=V),
    "matmul": lambda mb: mb.matmul(x=V, y=V, transpose_y=True),
    "flatten2d": lambda mb: mb.flatten2d(x=V, axis=2),
    "linear_activation": lambda mb: mb.linear_activation(x=V, alpha=2.0, beta=0.5),
    "split": lambda mb: mb.split(x=V, num_splits=2, axis=1),
    "split sizes": lambda mb: mb.split(x=V, split_sizes=[1, 3], axis=1),
}  # fmt: skip


Inferred = list[tuple[np.ndarray, Any]]


def with_inference(folder: Path, builds: Mapping[str, Callable[[Any], Any]]) -> dict[str, Inferred]:
    """Name -> its results here, each with coremltools' variable; of one program, as each conversion takes a second."""
    variables_by_name: dict[str, list[Any]] = {}

    def all_of(mb: Any, ignored: Any) -> Any:
        for name, build in builds.items():
            variables = build(mb)
            variables_by_name[name] = list(variables) if isinstance(variables, (tuple, list)) else [variables]
        return tuple(
            mb.cast(x=var, dtype="int32") if var.dtype.__name__ == "bool" else mb.identity(x=var)
            for variables in variables_by_name.values()
            for var in variables
        )

    one = torch.zeros(1)
    results = iter(evaluate(saved(folder, all_of, one), one))
    return {name: [(next(results), var) for var in variables] for name, variables in variables_by_name.items()}


def compare_with_inference(results: Inferred) -> None:
    assert results
    for result, var in results:
        assert var.val is not None, "coremltools infers nothing"
        expected = np.asarray(var.val)
        if expected.dtype == np.float16:
            np.testing.assert_array_equal(result, expected)
        else:
            assert_close(result.reshape(expected.shape), expected.astype("f8"))


@pytest.fixture(scope="module")
def inferred(ct: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Inferred]:
    return with_inference(tmp_path_factory.mktemp("inferred"), INFERRED)


@pytest.mark.parametrize("name", INFERRED)
def test_what_coremltools_infers(inferred: dict[str, Inferred], name: str) -> None:
    compare_with_inference(inferred[name])


@some
@given(data=st.data())
def test_slices(ct: Any, tmp_path: Path, data: st.DataObject) -> None:
    draw, sides = data.draw, (4, 5, 6)
    begin = [draw(st.integers(-size, size - 1)) for size in sides]
    step = [draw(st.sampled_from([1, 2, -1])) for _ in sides]
    end = [draw(st.integers(-size, size)) for size in sides]
    masks = {f"{key}_mask": [draw(st.booleans()) for _ in sides] for key in ("begin", "end", "squeeze")}
    index = tuple(
        b if q else slice(None if first else b, None if last else e, s)
        for b, e, s, first, last, q in zip(begin, end, step, *masks.values(), strict=True)
    )
    values = V[0]
    assume(values[index].size)
    assume(not all(masks["squeeze_mask"]))
    path = saved(tmp_path, lambda mb, v: mb.slice_by_index(x=v, begin=begin, end=end, stride=step, **masks), X[0])
    np.testing.assert_array_equal(evaluate(path, X[0])[0], values[index])


@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention(ct: Any, tmp_path: Path, mask: str | None) -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    q, k, v = (image(2, 3, size, 6, seed=size, dtype=torch.float32) for size in (4, 5, 5))
    visible = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) > 0.3
    visible[:, 0] = True
    mask_value = {"bool": visible, "float": image(4, 5, dtype=torch.float32), None: None}[mask]

    @mb.program(input_specs=[mb.TensorSpec(tensor.shape) for tensor in (q, k, v)], opset_version=ct.target.iOS18)
    def program(q: Any, k: Any, v: Any) -> Any:
        more = {} if mask_value is None else {"attn_mask": mask_value.numpy()}
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, **more)

    with RECIPE._quiet():  # type: ignore[attr-defined]
        package = ct.convert(program, convert_to="mlprogram", pass_pipeline=ct.PassPipeline.EMPTY, skip_model_load=True,
                          minimum_deployment_target=ct.target.iOS18)  # fmt: skip
        package.save(str(tmp_path / "a.mlpackage"))
    (attended,) = evaluate(tmp_path / "a.mlpackage", q, k, v)
    assert_close(attended, F.scaled_dot_product_attention(q, k, v, attn_mask=mask_value))


def test_every_operator_is_tried() -> None:
    """In the tables and the tests above."""
    words = Path(__file__).read_text(encoding="utf-8")
    assert not {name for name in OPERATORS if f'"{name}"' not in words and f"mb.{name}(" not in words}


# ---- the file, the precision, and what goes wrong ----------------------------------------------------------------


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 16, 5)).eval()


def exported(folder: Path, model: nn.Module, x: Tensor, precision: str) -> Path:
    folder.mkdir()
    path = folder / "net.mlpackage"
    convert(fold(model, (x,)), RECIPE, path, inputs={"x": x}, precision=precision)
    return path


def test_a_package_is_read_as_coremltools_reads_it(ct: Any, tmp_path: Path) -> None:
    from coremltools.converters.mil.frontend.milproto.load import load as load_program

    x = image(1, 3, 6, 6, dtype=torch.float32)
    path = exported(tmp_path / "a", network(), x, "fp16")
    spec = ct.utils.load_spec(str(path))
    theirs = load_program(spec, spec.specificationVersion, str(path / "Data/com.apple.CoreML/weights"))
    ours = read_program(path)
    constants = {op.outputs[0].name: op.val.val for op in theirs.functions["main"].operations if op.op_type == "const"}
    assert constants.keys() == ours.constants.keys()
    assert any(np.ndim(value) == 4 for value in constants.values())
    for name, value in ours.constants.items():
        np.testing.assert_array_equal(value, constants[name])
    operations = [op for op in theirs.functions["main"].operations if op.op_type != "const"]
    assert [(step.operator, step.results[0].name) for step in ours.operations] == [
        (o.op_type, o.outputs[0].name) for o in operations
    ]
    assert [spec.shape for spec in ours.inputs] == [(1, 3, 6, 6)]


def test_a_damaged_weight_file_is_refused(ct: Any, tmp_path: Path) -> None:
    path = exported(tmp_path / "a", network(), image(1, 3, 6, 6, dtype=torch.float32), "fp32")
    weights = path / "Data/com.apple.CoreML/weights/weight.bin"
    weights.write_bytes(b"\0" * weights.stat().st_size)
    with pytest.raises(ValueError, match=r"weight.bin holds no float32 of \["):
        read_program(path)


def test_half_precision_rounds_every_result_to_it(ct: Any, tmp_path: Path) -> None:
    x = image(1, 3, 6, 6, dtype=torch.float32)
    path = exported(tmp_path / "a", network(), x, "fp16")
    program = read_program(path)
    for result in run_program(program, {"x": x}):
        for spec, value in zip(result.operation.results, result.values, strict=True):
            assert value.dtype == torch.float32
            assert spec.dtype == "float32" or torch.equal(value, value.half().float())
    kinds = {spec.dtype for operation in program.operations for spec in operation.results}
    assert kinds == {"float16", "float32"}
    traces = trace(path, {"x": x})
    assert [entry.operation for entry in traces] == list(program.operations)
    assert all(entry.is_finite and entry.peak > 0 and entry.seconds > 0 for entry in traces)


def test_an_overflow_is_found_where_it_happens(ct: Any, tmp_path: Path) -> None:
    """Half precision ends at 65504; the square of 300 is more, its root is not."""
    model = Toy(lambda net, x: net.fc(x.square().mean(-1, keepdim=True).sqrt()), fc=nn.Linear(1, 4)).eval()
    x = 300 * image(2, 6, dtype=torch.float32)
    single, half = (exported(tmp_path / p, model, x, p) for p in ("fp32", "fp16"))
    assert_close(evaluate(single, x)[0], model(x).detach(), 1e-4)
    assert not np.isfinite(evaluate(half, x)[0]).all()
    assert first_divergence(single, [x]) is None
    divergence = first_divergence(half, [x])
    assert divergence is not None
    assert (divergence.kind, divergence.operation.operator, divergence.operation.name) == (
        "overflow",
        "mul",
        "square_cast_fp16",
    )
    assert divergence.peak == pytest.approx(float(x.square().max()), rel=1e-2)
    assert divergence.error_before < 1e-3
    assert divergence.operation.name in divergence.label


def test_a_cancellation_is_found_where_it_happens(ct: Any, tmp_path: Path) -> None:
    def build(mb: Any, v: Any) -> Any:
        far = mb.add(x=mb.tanh(x=v), y=np.float16(4096), name="away")
        return mb.exp(x=mb.sub(x=far, y=np.float16(4096), name="back"))

    path = saved(tmp_path, build, X, half=True)
    divergence = first_divergence(path, [X])
    assert divergence is not None
    assert (divergence.kind, divergence.operation.operator, divergence.operation.name) == ("explosion", "sub", "back")
    assert divergence.error > 0.1 > divergence.error_before
    assert first_divergence(saved(tmp_path, lambda mb, v: mb.tanh(x=v), X, half=True), [X]) is None


def test_values_are_released_after_their_last_use(ct: Any, tmp_path: Path) -> None:
    """Of a chain with one branch, only the branch's value and the chain's last two live while it runs."""

    def build(mb: Any, v: Any) -> Any:
        branch = mb.add(x=v, y=np.ones((2, 4, 5, 6), np.float32), name="branch")
        end = mb.tanh(x=branch)
        for _ in range(6):
            end = mb.tanh(x=end)
        return mb.add(x=end, y=branch)

    program = read_program(saved(tmp_path, build, X))
    values = []
    for result in run_program(program, {program.inputs[0].name: X}):
        values += [(result.operation.index, weakref.ref(value)) for value in result.values]
        living = [index for index, reference in values if reference() is not None]
        assert len(living) <= 2, f"{living} live after operation {result.operation.index}"
    assert len(values) == 9


def test_a_package_travels_to_the_worker_whole(tmp_path: Path) -> None:
    """Without any of edgevit on its path, it is imported under the name that it has in the archive."""
    source = evaluator_source(load_recipe("coreml").RECIPE)
    archive = pack_recipe(source, tmp_path / "worker.pyz")
    modules = {f"edgevit_recipes/mil/{file.relative_to(source)}" for file in source.rglob("*.py")}
    assert len(modules) > 10 and modules <= set(zipfile.ZipFile(archive).namelist())
    code = "import sys, edgevit_recipes.mil as mil; print(mil.RECIPE.target, 'edgevit' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(archive)}, cwd=tmp_path,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert process.stdout.split() == ["mil", "False"]


def test_an_unknown_operator_is_named_with_its_place(ct: Any, tmp_path: Path) -> None:
    path = saved(tmp_path, lambda mb, v: mb.identity(x=mb.non_zero(x=mb.relu(x=v), name="where")), X)
    with pytest.raises(UnsupportedError, match=r"operator of non_zero 'where' \(operation \d+\)"):
        load(path, threads=1)


def test_a_result_of_another_shape_than_declared_is_an_error(
    ct: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, lambda mb, v: mb.relu(x=v, name="one"), X)
    monkeypatch.setitem(OPERATORS, "relu", lambda a: a["x"][:1])
    with pytest.raises(
        ValueError, match=r"relu 'one' \(operation 0\) declares \[2, 4, 5, 6\] and gives \[1, 4, 5, 6\]"
    ):
        evaluate(path, X)


def test_infinite_constants_are_no_overflow(ct: Any, tmp_path: Path) -> None:
    mask = np.array([0, -math.inf, 0, 0, -math.inf, 0], np.float16)
    path = saved(tmp_path, lambda mb, v: mb.softmax(x=mb.add(x=v, y=mask), axis=-1), X, half=True)
    assert first_divergence(path, [X]) is None
    assert (evaluate(path, X)[0][..., 1] == 0).all()
