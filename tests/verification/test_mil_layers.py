"""Operators of ML programs that coremltools itself cannot compute, against torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # as everybody calls it
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from support.ml_programs import INDEX, X, as_array, assert_close, evaluate, few_examples, saved
from support.nets import image

pytestmark = pytest.mark.coreml


@few_examples
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


@few_examples
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


@few_examples
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


C4, C4B = image(4, seed=5, dtype=torch.float32), image(4, seed=6, dtype=torch.float32)
POSITIVE = C4.abs() + 0.5
MATRIX = image(3, 6, seed=7, dtype=torch.float32)
LAST = image(6, seed=8, dtype=torch.float32)
ROW = image(3, seed=9, dtype=torch.float32)


# Operators that coremltools itself cannot compute, against torch: what is built, and what it should be.
# Some of them lie beside the map.
PLACES = image(2, 3, 7, 2, seed=5, dtype=torch.float32) * 1.2


def resampled(mode: str, padding: str, aligned: bool, mb: Any, v: Any) -> Any:
    zero = (np.float16 if "16" in v.dtype.__name__ else np.float32)(0)
    return mb.resample(
        x=v, coordinates=PLACES.numpy(), sampling_mode=mode, padding_mode=padding, padding_value=zero,
        coordinates_mode="normalized_minus_one_to_one", align_corners=aligned,
    )  # fmt: skip


LAYERS: dict[str, tuple[Callable[..., Any], Callable[[Tensor], Tensor]]] = {
    "linear": (
        lambda mb, v: mb.linear(x=v, weight=as_array(MATRIX), bias=as_array(ROW)), lambda x: F.linear(x, MATRIX, ROW),
    ),
    "batch_norm": (
        lambda mb, v: mb.batch_norm(x=v, mean=as_array(C4), variance=as_array(POSITIVE), gamma=as_array(C4B),
                                    beta=as_array(C4), epsilon=1e-3),
        lambda x: F.batch_norm(x, C4, POSITIVE, C4B, C4, eps=1e-3),
    ),
    "instance_norm": (
        lambda mb, v: mb.instance_norm(x=v, gamma=as_array(C4B), beta=as_array(C4), epsilon=1e-3),
        lambda x: F.instance_norm(x, weight=C4B, bias=C4, eps=1e-3),
    ),
    "layer_norm": (
        lambda mb, v: mb.layer_norm(x=v, axes=[-1], gamma=as_array(LAST), beta=as_array(LAST), epsilon=1e-3),
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
    "prelu": (lambda mb, v: mb.prelu(x=v, alpha=as_array(C4)), lambda x: F.prelu(x, C4)),
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
    **{
        f"resample {mode} {padding}, {'' if aligned else 'not '}aligned": (
            partial(resampled, mode, padding, aligned),
            partial(F.grid_sample, grid=PLACES, mode=mode, padding_mode=torch_padding, align_corners=aligned),
        )
        for mode, padding, torch_padding, aligned in (
            ("bilinear", "constant", "zeros", False), ("bilinear", "border", "border", True),
            ("nearest", "constant", "zeros", True), ("bilinear", "symmetric", "reflection", False),
            ("bilinear", "reflection", "reflection", True),
        )
    },
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
        lambda mb, v: mb.softplus_parametric(x=v, alpha=as_array(C4), beta=as_array(POSITIVE)),
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
    "resample nearest constant, aligned",
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
    assert np.abs(halved.astype("f4") - as_array(expected)).max() > 0 or name in MOVES
