"""A user's own code as MODEL: what is imported, which weights it gives, and what its failures say."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from edgevit.errors import EdgevitError, ModelError, UnknownNameError
from edgevit.models.source import Subject, load_subject, require_taken
from edgevit.models.user_code import UserCode, import_definitions
from edgevit.records.artifact import WeightsRequest
from edgevit.records.model_reference import ModelReference
from support.command_line import edgevit

HEAD = "import torch\nfrom torch import nn\n\n"
NET = "def net():\n    torch.manual_seed(3)\n    return nn.Sequential(nn.Conv2d(3, {0}, 1), nn.Flatten()).eval()\n"
RUNS = "class Net(nn.Module):\n    def forward(self, x):\n        {0}\n\ndef net():\n    return Net().eval()\n"
SIZE = (4, 4)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + text)
    return path


def load(model: str, seed: int = 0, weights: Path | None = None) -> Subject:
    return load_subject(model, input_size=SIZE, weights=WeightsRequest(weights, seed=seed))


def channels(subject: Subject) -> int:
    return int(subject.module.get_parameter("0.weight").shape[0])


def failure(model: str) -> ModelError:
    """Return the error of a model's code, after a check of its form: five lines at most, the user's own first."""
    with pytest.raises(ModelError) as caught:
        require_taken(load(model), batch=1)
    assert len(str(caught.value).splitlines()) <= 5
    return caught.value


@pytest.mark.parametrize(
    ("text", "kind", "name", "function"),
    [
        ("mobilevig_ti", "zoo", "mobilevig_ti", ""),
        ("nets/mine.py:small", "file", "nets/mine.py", "small"),
        ("nets.mine:small", "module", "nets.mine", "small"),
        ("mine:small", "module", "mine", "small"),
        ("timm:resnet18.a1_in1k", "timm", "resnet18.a1_in1k", ""),
        ("hf:folders/vit", "hf", "folders/vit", ""),
        ("nets/mine:small", "zoo", "nets/mine:small", ""),
        ("mobilevig_*", "zoo", "mobilevig_*", ""),
    ],
)
def test_the_forms_of_a_model_are_told_apart(text: str, kind: str, name: str, function: str) -> None:
    reference = ModelReference.parse(text)
    assert (reference.kind, reference.name, reference.function) == (kind, name, function)
    assert reference.is_own == (kind != "zoo")


# --- imports -----------------------------------------------------------------------------------------------------


def test_a_file_imports_the_file_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "blocks.py", NET.format(5))
    write(tmp_path / "mine.py", "import blocks\n\ndef small():\n    return blocks.net()\n")
    assert channels(load(f"{tmp_path}/mine.py:small")) == 5


def test_two_folders_with_a_helper_of_one_name_get_their_own(tmp_path: Path) -> None:
    for folder, width in (("a", 5), ("b", 6)):
        write(tmp_path / folder / "helper_of_both.py", NET.format(width))
        write(tmp_path / folder / "mine.py", "from helper_of_both import net\n")
    widths = [channels(load(f"{tmp_path}/{folder}/mine.py:net")) for folder in "aba"]
    assert widths == [5, 6, 5]


def test_a_changed_helper_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(tmp_path / "mine.py", "from helper_that_changes import net\n")
    for width in (5, 6):
        write(tmp_path / "helper_that_changes.py", NET.format(width))
        assert channels(load(f"{tmp_path}/mine.py:net")) == width
    assert not list(tmp_path.rglob("__pycache__")), "nothing is written beside the user's files"


def test_what_the_process_had_imported_is_its_own_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ModuleType("helper_of_the_session")
    monkeypatch.setitem(sys.modules, session.__name__, session)
    write(tmp_path / f"{session.__name__}.py", NET.format(7))
    write(tmp_path / "mine.py", f"from {session.__name__} import net\n")
    assert channels(load(f"{tmp_path}/mine.py:net")) == 7
    assert sys.modules[session.__name__] is session


def test_a_file_in_a_package_may_import_relatively(tmp_path: Path) -> None:
    write(tmp_path / "package_of_mine/__init__.py", "")
    write(tmp_path / "package_of_mine/inner/__init__.py", "from ..blocks import net\n")
    write(tmp_path / "package_of_mine/blocks.py", NET.format(5))
    write(tmp_path / "package_of_mine/inner/mine.py", "from . import net\nfrom ..blocks import net as other\n")
    assert channels(load(f"{tmp_path}/package_of_mine/inner/mine.py:net")) == 5
    assert channels(load(f"{tmp_path}/package_of_mine/inner/mine.py:other")) == 5


def test_a_module_is_named_with_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "dotted/blocks.py", NET.format(5))  # without __init__.py, as `python -m` takes it
    write(tmp_path / "dotted/mine.py", "from .blocks import net\n")
    monkeypatch.chdir(tmp_path)
    subject = load("dotted.mine:net")
    assert channels(subject) == 5 and subject.name == "dotted.mine:net"


def test_an_import_inside_a_function_that_runs_later_works(tmp_path: Path) -> None:
    write(tmp_path / "late_helper.py", "def twice(x):\n    return 2 * x\n")
    forward = "from late_helper import twice\n        return twice(x)"
    write(tmp_path / "mine.py", RUNS.format(forward))
    subject = load(f"{tmp_path}/mine.py:net")
    assert torch.equal(subject.module(torch.ones(1, 3, 4, 4)), 2 * torch.ones(1, 3, 4, 4))


def test_a_file_sees_its_own_name_and_no_arguments(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", "import sys\nassert sys.argv == [__file__], sys.argv\n" + NET.format(5))
    argv = list(sys.argv)
    path = list(sys.path)
    load(f"{file}:net")
    assert sys.argv == argv and sys.path[: len(path)] == path


# --- weights -----------------------------------------------------------------------------------------------------

DRAWN = "def net():\n    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()).eval()\n"


def test_weights_that_a_function_draws_come_from_the_seed_and_are_called_random(tmp_path: Path) -> None:
    model = f"{write(tmp_path / 'mine.py', DRAWN)}:net"
    first, second, other = load(model), load(model), load(model, seed=1)
    assert first.source == second.source and (first.source.weights, first.source.seed) == ("random", 0)
    assert (other.source.weights, other.source.seed) == ("random", 1)
    assert other.source.state_sha256 != first.source.state_sha256


def test_weights_that_a_file_draws_when_it_is_imported_are_called_random(tmp_path: Path) -> None:
    text = "NET = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()).eval()\n\ndef net():\n    return NET\n"
    assert load(f"{write(tmp_path / 'mine.py', text)}:net").source.weights == "random"


def test_weights_that_do_not_depend_on_random_numbers_are_the_function_s(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv2d(3, 4, 1).state_dict(), tmp_path / "w.pth")
    text = (
        "def net():\n    net = nn.Conv2d(3, 4, 1)\n"
        f"    net.load_state_dict(torch.load({str(tmp_path / 'w.pth')!r}, weights_only=True))\n    return net.eval()\n"
    )
    source = load(f"{write(tmp_path / 'mine.py', text)}:net").source
    assert (source.weights, source.seed) == ("function", None)


@pytest.mark.parametrize("numbers", ["random.random()", "np.random.rand()", "torch.rand(()).item()"])
def test_random_numbers_of_every_kind_come_from_the_seed(tmp_path: Path, numbers: str) -> None:
    text = (
        "import random\nimport numpy as np\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n"
        f"        self.register_buffer('scale', torch.tensor({numbers}), persistent=False)\n"
        "    def forward(self, x):\n        return self.scale * x\n\ndef net():\n    return Net().eval()\n"
    )
    before = random.getstate(), torch.get_rng_state()
    subjects = [load(f"{write(tmp_path / 'mine.py', text)}:net") for _ in range(2)]
    assert subjects[0].source.weights == "random"
    assert torch.equal(*(subject.module.get_buffer("scale") for subject in subjects))
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])


def test_weights_that_differ_at_each_call_are_refused(tmp_path: Path) -> None:
    text = f"import time\n\n{DRAWN.replace('return', 'torch.manual_seed(time.time_ns()); return')}"
    file = write(tmp_path / "mine.py", text)
    error = failure(f"{file}:net")
    assert "other weights at each call" in error.what and "--weights" in error.fix
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)).state_dict(), tmp_path / "w.pth")
    assert load(f"{file}:net", weights=tmp_path / "w.pth").source.weights == "file"


def test_code_that_runs_once_only_is_taken_at_its_first_answer(tmp_path: Path) -> None:
    text = f"calls = []\n\n{DRAWN.replace('return', 'calls.append(1); assert len(calls) == 1; return')}"
    assert load(f"{write(tmp_path / 'mine.py', text)}:net").source.weights == "function"


# --- failures ----------------------------------------------------------------------------------------------------


def test_an_exception_names_the_user_s_own_line_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine.py", "def net():\n    return nn.Conv2d(3, 4, kernel=1).eval()\n")
    monkeypatch.chdir(tmp_path)
    error = failure("mine.py:net")
    assert error.what == "mine.py:5: return nn.Conv2d(3, 4, kernel=1).eval()"
    assert error.where == "in net, called for mine.py:net"
    assert error.why.startswith("TypeError: ") and "edgevit fold mine.py:net -v" in error.fix


def test_an_exception_deep_in_a_library_names_the_user_s_last_line(tmp_path: Path) -> None:
    write(tmp_path / "blocks.py", "def body():\n    return nn.Sequential(3)\n")
    file = write(tmp_path / "mine.py", "import blocks\n\ndef net():\n    return blocks.body().eval()\n")
    error = failure(f"{file}:net")
    assert error.what == f"{tmp_path}/blocks.py:5: return nn.Sequential(3)"
    assert error.where.startswith("in body, called for") and "raised in module.py:" in error.where


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    error = failure(f"{write(tmp_path / 'mine.py', 'def net(:')}:net")
    assert error.what == f"{tmp_path}/mine.py:4: def net(:" and error.why.startswith("SyntaxError")


def test_a_missing_package_is_named_with_pip(tmp_path: Path) -> None:
    error = failure(f"{write(tmp_path / 'mine.py', 'import package_that_is_missing.inner')}:net")
    assert error.what.endswith("mine.py:4: import package_that_is_missing.inner")
    assert f"{sys.executable} -m pip install" in error.fix and "package_that_is_missing" in error.fix


def test_a_relative_import_without_a_package_says_how_to_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "folder_of_mine/blocks.py", NET.format(5))
    file = write(tmp_path / "folder_of_mine/mine.py", "from .blocks import net\n")
    error = failure(f"{file}:net")
    assert error.fix.endswith(f"cd {tmp_path} && edgevit fold folder_of_mine.mine:net")
    monkeypatch.chdir(tmp_path)
    assert channels(load("folder_of_mine.mine:net")) == 5


@pytest.mark.parametrize("code", ["0", "1", "'bye'", ""])
@pytest.mark.parametrize("place", ["import", "function", "forward"])
def test_an_exit_is_a_failure(tmp_path: Path, code: str, place: str) -> None:
    leave = {name: f"sys.exit({code})" if name == place else "pass" for name in ("import", "function", "forward")}
    text = (
        f"import sys\n{leave['import']}\n\nclass Net(nn.Module):\n    def forward(self, x):\n"
        f"        {leave['forward']}\n        return x\n\n"
        f"def net():\n    {leave['function']}\n    return Net().eval()\n"
    )
    error = failure(f"{write(tmp_path / 'mine.py', text)}:net")
    assert f"sys.exit({code})" in error.what and "ends the program" in error.why and "__main__" in error.fix


def test_a_network_that_does_not_run_names_its_own_line_and_the_inputs(tmp_path: Path) -> None:
    error = failure(f"{write(tmp_path / 'mine.py', RUNS.format('return x.view(1, 7)'))}:net")
    assert error.what.endswith("mine.py:6: return x.view(1, 7)")
    assert "image 1x3x4x4, which was assumed" in error.where and "--input-shape" in error.fix


def test_a_network_of_torch_s_layers_alone_that_does_not_run_is_named(tmp_path: Path) -> None:
    error = failure(f"{write(tmp_path / 'mine.py', DRAWN.replace('Conv2d(3, 4, 1)', 'Linear(7, 4)'))}:net")
    assert "mine.py:net: it does not take image 1x3x4x4" in error.what and error.why.startswith("RuntimeError")


def test_errors_of_edgevit_and_ctrl_c_pass_through(tmp_path: Path) -> None:
    for error in (EdgevitError("as it is"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, UserCode(f"{tmp_path}/mine.py:net"):
            raise error
        assert caught.value is error


def test_what_is_no_file_or_no_function_is_refused(tmp_path: Path) -> None:
    assert "no such file" in failure(f"{tmp_path}/mine.py:net").what
    assert "package_that_is_missing" in failure("package_that_is_missing.mine:net").why
    file = write(tmp_path / "mine.py", NET.format(5) + "\ndef number():\n    return 3\n")
    assert "it returned int" in failure(f"{file}:number").what
    with pytest.raises(UnknownNameError, match="did you mean net"):
        load(f"{file}:nets")
    assert import_definitions(f"{file}:net").__file__ == str(file)


# --- the command line ---------------------------------------------------------------------------------------------


def test_prints_of_the_user_s_code_leave_the_json_whole(tmp_path: Path) -> None:
    text = (
        "import os, sys\nprint('while imported')\nos.system('echo from a shell')\n\nclass Net(nn.Module):\n"
        "    def forward(self, x):\n        sys.stdout.write('while running\\n')\n        return 2 * x\n\n"
        "def net():\n    print('while called')\n    return Net().eval()\n"
    )
    file = write(tmp_path / "mine.py", text)
    outcome = edgevit("fold", f"{file}:net", "--input-size", "4", "--json")
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout)["passed"]
    for words in ("while imported", "from a shell", "while running", "while called"):
        assert words in outcome.stderr


def test_a_failure_of_the_user_s_code_is_no_traceback(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", "def net():\n    return 1 / 0\n")
    outcome = edgevit("fold", f"{file}:net", "--input-size", "4")
    first = outcome.stderr.splitlines()[0]
    assert outcome.returncode == 1 and first == f"error: {file}:5: return 1 / 0"
    assert "Traceback" not in outcome.stderr
    assert "ZeroDivisionError" in edgevit("fold", f"{file}:net", "--input-size", "4", "-v").stderr


def test_python_itself_agrees_about_what_is_imported(tmp_path: Path) -> None:
    """A helper that has the name of an installed package is the user's, as under `python FILE.py`."""
    write(tmp_path / "mpmath.py", NET.format(5))
    file = write(tmp_path / "mine.py", "from mpmath import net\nprint(net()[0].weight.shape[0])\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    outcome = subprocess.run([sys.executable, file], capture_output=True, text=True, check=True, env=environment)
    assert int(outcome.stdout) == channels(load(f"{file}:net")) == 5
