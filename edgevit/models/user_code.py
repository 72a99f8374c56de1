"""A user's own code: FILE.py and package.module are imported as Python itself would run them.

The folder of FILE.py comes first on the path of imports, as under `python FILE.py`. A file inside a package is
imported as a part of it, so that relative imports work. Modules beside it are imported afresh at each load.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import re
import site
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NoReturn

from edgevit.errors import EdgevitError, ModelError
from edgevit.records.model_reference import ModelReference

_MODEL_FORMS = "MODEL is a name of `edgevit models`, FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION, timm:NAME or hf:FOLDER"
_OTHER_INPUTS = "--input-shape 1x1x28x28 says another shape, and NAME=SHAPE:TYPE each of several inputs"
_NEVER_HIDDEN = frozenset({"edgevit", "edgevit_runtime", "__main__", *sys.stdlib_module_names})
_INSTALLED = tuple(map(Path, (*site.getsitepackages(), site.getusersitepackages())))
_PACKAGE = Path(__file__).parents[1]
_RELATIVE_IMPORT = re.compile(r"\s*from\s+\.")  # in a line of Python
_LONGEST = 300  # characters of an exception's message

# Names of modules that earlier loads have left in sys.modules.
_loaded: set[str] = set()


class UserCode:
    """A context in which a user's code runs. An exception of it, or its exit, becomes a ModelError with its own line.

    Errors of edgevit pass as they are, and so does Ctrl-C. `inputs` describes what a network runs on.
    """

    def __init__(self, model: str, inputs: str = "") -> None:
        reference = ModelReference.parse(model)
        self.model, self.inputs = model, inputs
        self.folders = _import_folders(reference) if reference.function else ()

    def __enter__(self) -> UserCode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, (EdgevitError, KeyboardInterrupt)):
            return
        self._refuse(error)

    def _refuse(self, error: BaseException) -> NoReturn:
        """Raise a ModelError of five lines: the user's own line, where it is, why it failed, and what mends it."""
        frames = traceback.extract_tb(error.__traceback__)
        own_frames = [frame for frame in frames if self.is_own(frame.filename)]
        where = f"called for {self.model}" + f" on {self.inputs}" * bool(self.inputs)
        if isinstance(error, SyntaxError) and error.filename and self.is_own(error.filename):
            line, text = f"{_shown(error.filename)}:{error.lineno}", (error.text or "").strip()
        elif own_frames:
            last = own_frames[-1]
            line, text = f"{_shown(last.filename)}:{last.lineno}", (last.line or "").strip()
            where = f"in {last.name}, {where}" if last.name.isidentifier() else where
            if frames[-1] is not last:
                where += f"; raised in {Path(frames[-1].filename).name}:{frames[-1].lineno}"
        else:
            line, text = self.model, f"it does not take {self.inputs}" if self.inputs else "it cannot be loaded"
        why, fix = self._reason(error, text)
        raise ModelError(f"{line}: {text}", where=where, why=why, fix=fix) from error

    def _reason(self, error: BaseException, line: str) -> tuple[str, str]:
        """Return why the user's code failed, and what mends it."""
        if isinstance(error, SystemExit):
            why = f"sys.exit({error.code!r}) ends the program, where a network is needed"
            return why, "put what runs the program below: if __name__ == '__main__':"
        message = next(iter(str(error).strip().splitlines()), "")[:_LONGEST]
        why = f"{type(error).__name__}: {message}" if message else type(error).__name__
        reference = ModelReference.parse(self.model)
        if reference.kind in ("timm", "hf"):
            return why, f"pip install -U 'edgevit[{reference.kind}]'"
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = error.name.partition(".")[0]
            return why, f"{sys.executable} -m pip install PACKAGE, with the package that has {package}"
        if isinstance(error, ImportError) and reference.kind == "file" and _RELATIVE_IMPORT.match(line):
            file = Path(reference.name).resolve()
            name = f"{file.parent.name}.{file.stem}:{reference.function}"
            return why, f"an __init__.py beside it, or: cd {file.parent.parent} && edgevit fold {name}"
        if isinstance(error, PermissionError):
            return why, f"make it readable: chmod u+r {error.filename}" if error.filename else "allow it"
        if self.inputs:
            return why, f"{_OTHER_INPUTS}; or mend that line"
        return why, f"mend that line; edgevit fold {self.model} -v shows the whole traceback"

    def is_own(self, filename: str) -> bool:
        """Return whether a file of code is the user's own, and not an installed one."""
        path = Path(filename)
        return any(path.is_relative_to(folder) for folder in self.folders) and not _is_installed(path)


def import_definitions(model: str) -> ModuleType:
    """Import the module that MODEL names by FILE.py or package.module. Raise ModelError where that fails."""
    reference = ModelReference.parse(model)
    file = Path(reference.name)
    if reference.kind == "file" and not file.is_file():
        raise ModelError("no such file", where=str(file), fix=_MODEL_FORMS)
    folders = _import_folders(reference)
    with UserCode(model), _as_main(reference.name, folders):
        if reference.kind == "module":
            return importlib.import_module(reference.name)
        if (file.parent / "__init__.py").is_file():
            return importlib.import_module(_dotted(file.resolve(), folders[0]))
        return _import_alone(file)


def code_files(model: str) -> list[Path]:
    """Return the user's own files that MODEL was imported from, in this process; none for a model of another kind."""
    reference = ModelReference.parse(model)
    if not reference.function:
        return []
    code = UserCode(model)
    names = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    files = {Path(name).resolve() for name in names if name and name.endswith(".py") and code.is_own(name)}
    return sorted(files)


def _import_alone(file: Path) -> ModuleType:
    """Import a file that is in no package, under a name that no other module has."""
    name = f"edgevit_subject_{file.stem}"
    loader = importlib.machinery.SourceFileLoader(name, str(file.resolve()))
    spec = importlib.util.spec_from_file_location(name, file.resolve(), loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look there for what the file defines.
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def _import_folders(reference: ModelReference) -> tuple[Path, ...]:
    """Return the folders that the user's imports are looked up in, the first one before all others."""
    if reference.kind == "module":
        return (Path.cwd(),)
    folder = Path(reference.name).resolve().parent
    top = folder
    while (top / "__init__.py").is_file():
        top = top.parent
    return (folder,) if top == folder else (top, folder)


def _dotted(file: Path, top: Path) -> str:
    return ".".join(file.relative_to(top).with_suffix("").parts)


@contextlib.contextmanager
def _as_main(name: str, folders: Sequence[Path]) -> Iterator[None]:
    """Import as a program of this name would: its folder comes first, and its arguments are none.

    Afterwards the folders stand at the end of the path, for imports inside functions that run later.
    """
    argv, bytecode = sys.argv, sys.dont_write_bytecode
    hidden = _hide(folders)
    # What the process itself had imported is its own again afterwards.
    foreign = {name: module for name, module in hidden.items() if name not in _loaded}
    before = set(sys.modules)
    sys.path.insert(0, str(folders[0]))
    sys.path += [str(folder) for folder in folders if str(folder) not in sys.path[1:]]
    sys.argv, sys.dont_write_bytecode = [name], True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.argv, sys.dont_write_bytecode = argv, bytecode
        sys.path.remove(str(folders[0]))
        new = set(sys.modules) - before - set(foreign)
        _loaded.update(name for name in new if _origin_in(name, folders))
        sys.modules.update(foreign)


def _hide(folders: Sequence[Path]) -> dict[str, ModuleType]:
    """Remove modules from sys.modules whose names the folders define too, and return them."""
    tops = {name.partition(".")[0] for name in sys.modules} - _NEVER_HIDDEN
    names = {top for top in tops if any(_defines(folder, top) for folder in folders)}
    hidden = {name for name in sys.modules if name.partition(".")[0] in names or name in _loaded}
    return {name: sys.modules.pop(name) for name in hidden}


def _defines(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()


def _origin_in(name: str, folders: Sequence[Path]) -> bool:
    """Return whether a loaded module comes from one of the folders, and is no installed one."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if not file:
        return False
    return any(Path(file).is_relative_to(folder) for folder in folders) and not _is_installed(Path(file))


def _is_installed(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in (*_INSTALLED, _PACKAGE))


def _shown(filename: str) -> str:
    """Return a path as a person would type it here."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
