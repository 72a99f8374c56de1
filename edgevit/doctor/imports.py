"""What can be imported, tried in processes of their own: an engine that crashes must not take the doctor with it."""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edgevit.devices.transports import PYTHON_OPTIONS
from edgevit_runtime.environment import installed

_TIMEOUT_S = 120  # torch takes seconds from a cold disk, not minutes
_AT_ONCE = 2  # more would only wait for the same disk
_SAYS = {"torch": "print(torch.get_num_threads())"}  # asked of a module once it is there


@dataclass(frozen=True)
class Import:
    """What came of importing a distribution: `version` is empty if it is not installed, `error` if it worked."""

    version: str
    error: str = ""
    said: str = ""  # the last line that the process printed
    hidden: bool = False  # from a worker, which looks in fewer places

    @property
    def works(self) -> bool:
        """Whether it was imported."""
        return bool(self.version) and not self.error


def try_imports(distributions: Iterable[str]) -> dict[str, Import]:
    """Import each distribution alone, in a fresh process, a few at a time."""
    names = list(dict.fromkeys(distributions))
    modules = {name: module for name, module in _modules(names).items() if installed((name,))[1]}
    hidden = _hidden(list(modules.values()))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        ended = dict(zip(modules, pool.map(_import, modules.values()), strict=True))
    found = {name: Import("") for name in names}
    for name, module in modules.items():
        error, said = ended[name]
        found[name] = Import(installed((name,))[1], error, said, hidden=module in hidden)
    return found


def trouble(names: Sequence[str], imports: Mapping[str, Import]) -> str:
    """Why these cannot all be imported; empty if they can."""
    if absent := [name for name in names if not imports[name].version]:
        return f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed"
    broken = (name for name in names if imports[name].error)
    return next((f"{name} {imports[name].version}: {imports[name].error}" for name in broken), "")


def ask(code: str, *options: str) -> tuple[str, str]:
    """Run Python code in a fresh process: why it failed, empty if it did not, and the last line that it printed."""
    command = [sys.executable, *(options or ("-P",)), "-c", code]  # -P: not what lies in the current folder
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False, text=True,
            errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end after {_TIMEOUT_S} s", ""
    return _meaning(done.returncode, _last(done.stderr)), _last(done.stdout)


def _import(module: str) -> tuple[str, str]:
    return ask(f"import {module}; {_SAYS.get(module, '')}")


def _meaning(code: int, said: str) -> str:
    if code < 0:
        return f"the import ended with signal {-code} ({signal.strsignal(-code)}) {said}".strip()
    return "" if code == 0 else said or f"the import ended with exit code {code}"


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _hidden(modules: Sequence[str]) -> set[str]:
    """Those that a worker's Python does not find: it ignores the user's site-packages and PYTHONPATH."""
    code = f"import importlib.util as u; print(*(name for name in {modules!r} if u.find_spec(name) is None))"
    error, said = ask(code, *PYTHON_OPTIONS)
    return set(modules) if error else set(said.split())


def _modules(distributions: Sequence[str]) -> dict[str, str]:
    """The name each distribution is imported by, which its metadata knows."""
    provided = importlib.metadata.packages_distributions()
    return {name: _module(name, provided) for name in distributions}


def _module(distribution: str, provided: Mapping[str, Sequence[str]]) -> str:
    same = distribution.replace("-", "_")
    names = [module for module, owners in provided.items() if distribution in owners and not module.startswith("_")]
    return same if same in names or not names else min(names, key=len)
