#!/usr/bin/env bash
# Expected: numpy.sort sorts, and numpy.unique of an array returns each of its numbers once.
# Instead: numpy leaves half precision partly unsorted on processors with AVX-512 of Ice Lake's generation or Zen 4's, where
# numbers repeat. numpy.unique then returns some of them several times. `NPY_DISABLE_CPU_FEATURES=AVX512_ICL` cures both.
# It costs: coremltools counts the values of a palettized weight by numpy.unique. Weights of 64 values then take 8 bits for
# each number in place of 6, so the file is a third larger, on such a processor alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from numpy._core._multiarray_umath import __cpu_features__

generator = np.random.default_rng(0)
values = np.sort(generator.normal(size=64)).astype(np.float16)
numbers = values[generator.integers(0, 64, 112_896)]
result = np.sort(numbers)
falls = int((np.diff(result.astype(np.float32)) < 0).sum())
print("numpy", np.__version__, {name: __cpu_features__[name] for name in ("AVX512_ICL", "AVX512_SPR")})
print("places where a sorted array falls:", falls)
print("different numbers:", len(set(numbers.tolist())), "numpy.unique:", len(np.unique(numbers)))
print("places with kind='stable':", int((np.diff(np.sort(numbers, kind="stable").astype(np.float32)) < 0).sum()))
if not __cpu_features__["AVX512_ICL"]:
    print("this processor has no AVX-512 of that generation, so nothing can be seen here")
    sys.exit(0)
sys.exit(0 if falls and len(np.unique(numbers)) > 64 else 1)
PYTHON
