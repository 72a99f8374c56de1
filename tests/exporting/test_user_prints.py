"""What a user's code prints in the child process of an export reaches the user."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import FunctionType

import pytest

from edgevit.exporting.user_prints import UserPrints
from support.command_line import edgevit
from support.subjects import tiny_file

TALKS = """
import sys
from torch import nn
from tiny import tiny

print("imported")

class Talks(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = tiny()

    def forward(self, x):
        print("forward")
        exec(compile("print('noise')", "/elsewhere/library.py", "exec"), {"__name__": "library"})
        return self.net(x)

def talks():
    print("50%\\r100%", file=sys.stderr)
    print("no end", end="")
    return Talks().eval()
"""
LIBRARY = "def talk(text): print(text)\ndef begin(text): print(text, end='')\n"


def functions_of(file: Path) -> dict[str, FunctionType]:
    """Return the functions of this code as if it stood in a file."""
    space: dict[str, FunctionType] = {"__name__": file.stem}  # type: ignore[dict-item]
    exec(compile(LIBRARY, str(file), "exec"), space)  # noqa: S102 - the code above
    return space


@pytest.mark.onnx
def test_a_user_sees_what_the_own_code_prints_and_json_stays_whole(tmp_path: Path) -> None:
    (tiny_file(tmp_path).parent / "talks.py").write_text(TALKS)
    options = ("-t", "onnx", "--input-size", "16x12", "--json")
    outcome = edgevit("export", f"{tiny_file(tmp_path).parent}/talks.py:talks", *options, folder=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout)["artifacts"][0]["parity"]["status"] == "passed"
    lines = outcome.stderr.splitlines()
    assert all("talks.py:talks: " in line for line in lines), "nothing that a converter printed"
    printed = [line.partition("talks.py:talks: ")[2] for line in lines]
    assert printed[:3] == ["imported", "100%", "no endforward"] and set(printed[3:]) == {"forward", "noise"}
    assert 0 < printed.count("noise") < printed.count("forward"), "a library counts while the network is loaded alone"


def test_after_loading_only_the_own_code_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, foreign = functions_of(tmp_path / "net.py"), functions_of(tmp_path.parent / "converter.py")
    sent: list[str] = []
    prints = UserPrints(f"{tmp_path / 'net.py'}:net", sent.append)
    with prints.relayed():
        foreign["talk"]("while loading")
        prints.is_loading = False
        foreign["talk"]("noise")
        own["talk"]("mine")
        sys.stderr.writelines(["the test's\n"])
        own["talk"]("two\nlines")
        own["begin"]("no end")
    assert sent == ["while loading", "mine", "two", "lines", "no end"]
    assert capsys.readouterr().out == "while loading\nnoise\nmine\ntwo\nlines\nno end", "it goes where it went"
    print("afterwards")
    assert len(sent) == 5


def test_a_zoo_model_prints_nothing_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[str] = []
    with UserPrints("mobilevig_ti", sent.append).relayed():
        print("noise")
    assert sent == [] and capsys.readouterr().out == "noise\n"
