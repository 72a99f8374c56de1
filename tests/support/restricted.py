"""Commands of edgevit run in a process that permissions of files hold back, as they hold back a person who is not root.

Root may read everything by two capabilities, which the process lacks. Without root nothing has to be taken away.

    python tests/support/restricted.py COMMANDS.json ANSWERS.json
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

_TIMEOUT_S = 300
_TAKEN = "-dac_override,-dac_read_search"


class Answer(NamedTuple):
    """The exit code of a command, and all that it printed; an exception in place of the code: it ended in that."""

    code: int | str
    text: str


def why_not() -> str:
    """Return why no process can be held back here; empty where it can."""
    return "setpriv is missing" if os.geteuid() == 0 and shutil.which("setpriv") is None else ""


def run_restricted(folder: Path, commands: Sequence[Sequence[str]], *, file_limit: int | None = None) -> list[Answer]:
    """Run commands in a folder, one after another in one process. file_limit: bytes that no file may exceed."""
    asked, answered = folder.parent / "commands.json", folder.parent / "answers.json"
    asked.write_text(json.dumps({"limit": file_limit, "commands": [list(words) for words in commands]}))
    held = ["setpriv", f"--bounding-set={_TAKEN}", f"--inh-caps={_TAKEN}"] if os.geteuid() == 0 else []
    homes = {f"XDG_{name}_HOME": str(folder.parent / name.lower()) for name in ("DATA", "CONFIG", "CACHE", "STATE")}
    subprocess.run(
        [*held, sys.executable, __file__, str(asked), str(answered)],
        cwd=folder, check=True, timeout=_TIMEOUT_S, env={**os.environ, **homes, "HOME": str(folder.parent)},
    )  # fmt: skip
    return [Answer(*one) for one in json.loads(answered.read_text())]


def _answer(words: Sequence[str]) -> Answer:
    from edgevit.cli import main

    out = io.StringIO()
    with _Ended() as end, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        main(list(words))
    return Answer(end.code, out.getvalue())


class _Ended:
    """Keeps how a command ended: a traceback is what the tests look for."""

    code: int | str = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            self.code = int(error.code or 0) if isinstance(error, SystemExit) else repr(error)
        return True


def _main() -> None:
    from edgevit.store import jsonl

    # The rows that ship would be added to each database, which takes seconds.
    jsonl.shipped_files = list
    asked, answered = map(Path, sys.argv[1:])
    request = json.loads(asked.read_text())
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    answers = []
    for words in request["commands"]:
        if request["limit"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], hard))
        answers.append(_answer(words))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    answered.write_text(json.dumps(answers))


if __name__ == "__main__":
    _main()
