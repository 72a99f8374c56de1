"""Operators of ML programs against coremltools' own inference, and those that need an input of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # as everybody calls it
from hypothesis import assume, given
from hypothesis import strategies as st

from support.ml_programs import INDEX, X, assert_close, evaluate, few_examples, quiet, saved
from support.nets import image

pytestmark = pytest.mark.coreml


V = X.numpy()
BOOL = V > 0
Build = Callable[[Any], Any]


def on(names: tuple[str, ...], **arguments: Any) -> dict[str, Build]:
    """Return name -> what builds that operator on these arguments."""

    def build_of(name: str) -> Build:
        return lambda mb: getattr(mb, name)(**arguments)

    return {name: build_of(name) for name in names}


INFERRED: dict[str, Build] = {
    **on(("abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor", "relu", "round", "sigmoid", "sign",
          "sin", "sinh", "square", "tan", "tanh"), x=V),
    **on(("acos", "asin", "atanh"), x=V.clip(-0.9, 0.9)),
    **on(("sqrt", "log", "rsqrt", "inverse"), x=np.abs(V) + 0.1),
    **on(("add", "sub", "mul", "real_div", "maximum", "minimum", "floor_div", "mod", "equal", "not_equal", "greater",
          "greater_equal", "less", "less_equal"), x=V, y=V[::-1, :, ::-1].copy()),
    **on(("logical_and", "logical_or", "logical_xor"), x=BOOL, y=BOOL[::-1].copy()),
    **on(("reduce_max", "reduce_min", "reduce_mean", "reduce_sum", "reduce_prod", "reduce_l1_norm", "reduce_l2_norm",
          "reduce_sum_square", "reduce_log_sum_exp"), x=V, axes=[1, -1], keep_dims=False),
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


def with_inference(folder: Path, builds: Mapping[str, Build]) -> dict[str, Inferred]:
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


@few_examples
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

    def attend(q: Any, k: Any, v: Any) -> Any:
        more = {} if mask_value is None else {"attn_mask": mask_value.numpy()}
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, **more)

    specs = [mb.TensorSpec(tensor.shape) for tensor in (q, k, v)]
    program = mb.program(input_specs=specs, opset_version=ct.target.iOS18)(attend)
    with quiet():
        package = ct.convert(program, convert_to="mlprogram", pass_pipeline=ct.PassPipeline.EMPTY, skip_model_load=True,
                          minimum_deployment_target=ct.target.iOS18)  # fmt: skip
        package.save(str(tmp_path / "a.mlpackage"))
    (attended,) = evaluate(tmp_path / "a.mlpackage", q, k, v)
    assert_close(attended, F.scaled_dot_product_attention(q, k, v, attn_mask=mask_value))
