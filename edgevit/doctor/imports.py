"""Imports of distributions in other processes: an engine that crashes must not end the doctor."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import shlex
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edgevit.devices.transports import PYTHON_OPTIONS
from edgevit_runtime.environment import installed

_LOG = logging.getLogger(__name__)

# torch takes seconds from a cold disk, not minutes.
_TIMEOUT_S = 120
# More processes would only wait for the same disk.
_AT_ONCE = 2
# What a module is asked once it is imported.
_QUESTIONS = {"torch": "torch.get_num_threads()"}
# Collections of garbage take up to a quarter of the time of large imports, and find next to nothing.
_QUICKLY = "import gc; gc.disable()"


@dataclass(frozen=True)
class Import:
    """The result of importing a distribution: `version` is empty if it is not installed, `error` if it worked."""

    version: str
    error: str = ""
    output: str = ""  # the module's answer where it is asked something
    hidden: bool = False  # from a worker, which looks in fewer places

    @property
    def works(self) -> bool:
        """Whether the import succeeded."""
        return bool(self.version) and not self.error


def try_imports(distributions: Iterable[str], together: Collection[str] = ()) -> dict[str, Import]:
    """Import each distribution in a fresh process, a few at a time. Those of `together` share one, in their order.

    They share what they import, which takes most of the time. What fails there is imported again, alone: that answer
    counts.
    """
    names = list(dict.fromkeys(distributions))
    modules = {name: module for name, module in _modules(names).items() if installed((name,))[1]}
    hidden = _hidden(list(modules.values()))
    shared = [module for name, module in modules.items() if name in together]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        first = pool.submit(_import_together, shared)
        alone = {module: pool.submit(_import, module) for module in modules.values() if module not in shared}
        answers = first.result()
        alone |= {module: pool.submit(_import, module) for module in shared if module not in answers}
        results = {module: ("", answer) for module, answer in answers.items()}
        results |= {module: future.result() for module, future in alone.items()}
    imports = {name: Import("") for name in names}
    for name, module in modules.items():
        error, output = results[module]
        imports[name] = Import(installed((name,))[1], error, output, hidden=module in hidden)
    return imports


def why_not_importable(names: Sequence[str], imports: Mapping[str, Import]) -> str:
    """Return why these distributions cannot all be imported; empty if they can."""
    if absent := [name for name in names if not imports[name].version]:
        return f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed"
    broken = (name for name in names if imports[name].error)
    return next((f"{name} {imports[name].version}: {imports[name].error}" for name in broken), "")


def ask(code: str, *options: str) -> tuple[str, str]:
    """Run Python code in a fresh process; return why it failed, empty if it did not, and the last line it printed."""
    # -P: modules in the current folder are not found.
    command = [sys.executable, *(options or ("-P",)), "-c", code]
    _LOG.debug("process started: %s", shlex.join(command))
    try:
        process = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False, text=True,
            errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end after {_TIMEOUT_S} s", ""
    return _explain(process.returncode, _last_line(process.stderr)), _last_line(process.stdout)


def _import(module: str) -> tuple[str, str]:
    return ask(f"{_QUICKLY}; import {module}; print({_QUESTIONS.get(module, '')})")


def _import_together(modules: Sequence[str]) -> dict[str, str]:
    """Import modules in one process; return the answers of those that work. Where the process fails, none counts."""
    if len(modules) < 2:
        return {}
    tries = (f"with suppress(Exception):\n    import {m}; works[{m!r}] = str({_QUESTIONS.get(m, '')})" for m in modules)
    lines = (
        _QUICKLY,
        "import json; from contextlib import suppress; works = {}",
        *tries,
        "print(); print(json.dumps(works))",
    )
    error, output = ask("\n".join(lines))
    try:
        return {} if error else dict(json.loads(output))
    except (TypeError, ValueError):
        # Something else was printed at the end.
        return {}


def _explain(exit_code: int, last_line: str) -> str:
    if exit_code < 0:
        return f"the import ended with signal {-exit_code} ({signal.strsignal(-exit_code)}) {last_line}".strip()
    return "" if exit_code == 0 else last_line or f"the import ended with exit code {exit_code}"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _hidden(modules: Sequence[str]) -> set[str]:
    """Return the modules that a worker's Python does not find: it ignores the user's site-packages and PYTHONPATH."""
    code = f"import importlib.util as u; print(*(name for name in {modules!r} if u.find_spec(name) is None))"
    error, output = ask(code, *PYTHON_OPTIONS)
    return set(modules) if error else set(output.split())


def _modules(distributions: Sequence[str]) -> dict[str, str]:
    """Return the name that each distribution is imported by, as its metadata has it."""
    provided = importlib.metadata.packages_distributions()
    return {name: _module(name, provided) for name in distributions}


def _module(distribution: str, provided: Mapping[str, Sequence[str]]) -> str:
    same = distribution.replace("-", "_")
    names = [module for module, owners in provided.items() if distribution in owners and not module.startswith("_")]
    return same if same in names or not names else min(names, key=len)
