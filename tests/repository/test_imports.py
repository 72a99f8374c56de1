"""Import rules of the package: every import is read with `ast` and compared with the table below.

The rooms stand in one row, `models -> folding -> verification -> quantization -> tuning -> exporting -> measurement ->
store -> prediction -> selection -> reporting`, and none imports one to its right. Around them are helpers. A new
package needs a line here: that is the moment to ask which room it belongs to.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from edgevit.recipes import list_recipes

ROOT = Path(__file__).parents[2]
ROOMS = (
    "models",
    "folding",
    "verification",
    "quantization",
    "tuning",
    "exporting",
    "measurement",
    "store",
    "prediction",
    "selection",
    "reporting",
)

# A module or package of edgevit, its imports of edgevit, and its imports of other packages. `(x)` is imported only
# inside functions. errors, records and edgevit_runtime are open to all. A package may import itself.
TABLE = """
                imports of edgevit                                  imports of other packages
# below the rooms: each knows nothing of any room
errors        |                                                   |
visible_text  |                                                   |
plain_files   |                                                   |
concurrency   |                                                   | filelock
records       | visible_text                                      | (pandas)
recipes       |                                                   |
cards         |                                                   |
checkpoint_files |                                                |
count         |                                                   | torch
artifacts     | checkpoint_files concurrency plain_files recipes  | platformdirs
devices       | artifacts recipes concurrency                     | platformdirs
images        | plain_files                                       | numpy PIL
# the rooms
models        | checkpoint_files plain_files                      | torch numpy safetensors
models        |                                                   | (timm transformers)
folding       | count                                             | torch
verification  | devices folding recipes concurrency plain_files   | torch numpy (PIL)
quantization  | folding images verification plain_files           | torch numpy
tuning        | folding count                                     | torch
exporting     | models folding verification artifacts count       | torch
exporting     | recipes concurrency quantization tuning           |
exporting     | visible_text                                      |
measurement   | artifacts devices recipes concurrency             | numpy
store         | concurrency                                       | sqlalchemy platformdirs
store         | (recipes)                                         | (alembic psycopg pyarrow)
prediction    |                                                   | numpy
selection     | (artifacts) cards checkpoint_files devices        | packaging
selection     | measurement prediction recipes (store)            |
reporting     | artifacts selection devices measurement store     | (plotly matplotlib)
reporting     | visible_text                                      |
# above the rooms: what puts them in a row
published     | cards recipes store                               | numpy (pyarrow yaml)
evaluation    | artifacts devices images recipes concurrency      | numpy (torch scipy)
evaluation    | (models) plain_files                              |
evaluation    | (exporting)                                       |
races         | exporting folding measurement models              |
races         | recipes tuning                                    |
sweeps        | artifacts cards checkpoint_files concurrency      |
sweeps        | devices exporting images                          |
sweeps        | measurement prediction                            |
sweeps        | recipes selection store (models)                  |
doctor        | devices exporting measurement recipes store       | (torch)
doctor        | concurrency                                       |
verbs         | artifacts cards concurrency devices evaluation    | (torch)
verbs         | exporting (quantization races)                    |
verbs         | measurement prediction recipes reporting          |
verbs         | selection store sweeps (models)                   |
cli           | (artifacts cards count devices doctor evaluation) | typer (rich torch)
cli           | (exporting folding measurement models published)  |
cli           | (recipes reporting selection store sweeps verbs)  |
cli           | concurrency visible_text                          |
# the package itself imports a room only when one of its names is used
edgevit       | (folding models selection store verbs)            |
latency_db    | store                                             | sqlalchemy alembic
"""

# DESIGN's column "must not import": nothing that the table above allows may break it, directly or through others.
NO_TORCH = (
    "concurrency",
    "artifacts",
    "devices",
    "measurement",
    "store",
    "prediction",
    "selection",
    "published",
    "reporting",
    "doctor",
    "evaluation",
    "verbs",
    "cli",
    "edgevit",
    "recipes",
    "cards",
    "records",
    "errors",
    "visible_text",
)
# These import no recipe, no engine, and no room to their right.
NO_RECIPES = ("models", "folding")
ENGINES = {"onnx", "onnxruntime", "onnxscript", "onnxsim", "coremltools", "openvino", "executorch", "litert_torch",
           "ai_edge_litert", "ncnn", "pnnx", "tensorrt", "tensorrt_rtx"}  # fmt: skip


class Import(NamedTuple):
    """One imported module: its full name, and whether the import runs at once, inside a function, or never."""

    name: str
    when: str  # "at once", "later", "for types"
    line: int
    is_relative: bool = False


class Row(NamedTuple):
    """The imports that a line of the table allows, each with whether it is allowed only inside functions."""

    inside: dict[str, bool]
    outside: dict[str, bool]


def package_files() -> dict[str, Path]:
    """Return the file of each module by its dotted name once installed."""
    homes = {"edgevit": ROOT / "edgevit", "edgevit_runtime": ROOT / "runtime/edgevit_runtime",
             "edgevit.export_recipes": ROOT / "export_recipes", "edgevit.latency_db": ROOT / "latency_db"}  # fmt: skip
    files = {}
    for package, folder in homes.items():
        for file in sorted(folder.rglob("*.py")):
            parts = [package, *file.relative_to(folder).with_suffix("").parts]
            files[".".join(parts).removesuffix(".__init__")] = file
    return files


FILES = package_files()
OURS = {name: file for name, file in FILES.items() if not name.startswith("edgevit_runtime")}
ROOM_FILES = {n: f for n, f in OURS.items() if not n.startswith(("edgevit.export_recipes", "edgevit.latency_db"))}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(name: str) -> tuple[Import, ...]:
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    return tuple(find_imports(tree(FILES[name]), "at once", package))


def find_imports(node: ast.AST, when: str, package: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inner = when
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = "later"
        elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            inner = "for types"
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, when, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            why = f"{package}: line {child.lineno}: relative imports hide which room is meant"
            assert child.level == 0 or package in EVALUATORS, why
            relative = child.level > 0
            yield from (Import(module, when, child.lineno, relative) for module in modules_named(child, package))
        yield from find_imports(child, inner, package)


def modules_named(node: ast.ImportFrom, package: str) -> set[str]:
    """Return the full names: `from edgevit import cards` and `from edgevit.cards import load_cards` name edgevit.cards.

    `package` is what a relative import begins from.
    """
    assert node.level <= 1, f"line {node.lineno}: `from ..` leaves the package"
    module = ".".join(filter(None, (package if node.level else "", node.module)))
    return {full if (full := f"{module}.{alias.name}") in FILES else module for alias in node.names}


def entry_of(name: str) -> str:
    """Return the entry of the table that a module belongs to: edgevit.folding.kernel -> folding."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def table() -> dict[str, Row]:
    lines = [line.split("|") for line in TABLE.splitlines() if "|" in line]
    rows: dict[str, Row] = {}
    for name, inside, outside in lines:
        row = rows.setdefault(name.strip(), Row({}, {}))
        row.inside.update(allowed(inside))
        row.outside.update(allowed(outside))
    return rows


def allowed(cell: str) -> dict[str, bool]:
    """Return the names in a cell of the table, each with whether it is allowed only inside functions."""
    later = {name: True for group in re.findall(r"\(([^)]*)\)", cell) for name in group.split()}
    return later | dict.fromkeys(re.sub(r"\([^)]*\)", "", cell).split(), False)


ROWS = table()


def is_stdlib(name: str) -> bool:
    return name.split(".")[0] in sys.stdlib_module_names


# The table


def test_every_module_has_an_entry() -> None:
    assert {entry_of(name) for name in OURS} - {"export_recipes"} == set(ROWS), "add it to TABLE, or take it out"


@pytest.mark.parametrize("name", [name for name in OURS if not name.startswith("edgevit.export_recipes")])
def test_imports_only_what_its_entry_allows(name: str) -> None:
    row, entry = ROWS[entry_of(name)], entry_of(name)
    for imported in imports(name):
        location = f"{FILES[name].relative_to(ROOT)}:{imported.line} imports {imported.name}"
        if imported.name.split(".")[0] in ("edgevit", "edgevit_runtime"):
            other = entry_of(imported.name)
            if imported.name.startswith("edgevit_runtime") or other in (entry, "errors", "records", "edgevit"):
                continue
            assert other in row.inside, f"{location}: {entry} may not"
            assert imported.when != "at once" or not row.inside[other], f"{location}: only inside a function"
        elif not is_stdlib(imported.name):
            package = imported.name.split(".")[0]
            assert package in row.outside, f"{location}: {entry} may not"
            assert imported.when != "at once" or not row.outside[package], f"{location}: only inside a function"


def test_table_allows_nothing_that_no_module_needs() -> None:
    used: dict[str, set[str]] = {}
    for name in OURS:
        for imported in imports(name):
            here = imported.name.startswith("edgevit")
            used.setdefault(entry_of(name), set()).add(entry_of(imported.name) if here else imported.name.split(".")[0])
    used["edgevit"] |= {entry_of(room) for room in lazy_rooms()}
    spare = {entry: {*row.inside, *row.outside} - used.get(entry, set()) for entry, row in ROWS.items()}
    assert not {entry: names for entry, names in spare.items() if names}


def lazy_rooms() -> list[str]:
    import edgevit

    return list(edgevit._PUBLIC.values())


# One way


def test_no_room_imports_one_to_its_right() -> None:
    for number, room in enumerate(ROOMS):
        if room in ROWS:
            assert not set(ROWS[room].inside) & set(ROOMS[number + 1 :]), room


def test_what_is_below_the_rooms_knows_no_room() -> None:
    names = list(ROWS)
    for helper in names[: names.index("models")]:
        assert not set(ROWS[helper].inside) & set(ROOMS), helper


def test_nothing_goes_in_circles() -> None:
    """No two entries need each other, at any moment of the import."""
    settled: set[str] = set()
    while len(settled) < len(ROWS):
        ready = {entry for entry, row in ROWS.items() if entry not in settled and set(row.inside) <= settled}
        assert ready, f"a circle among {sorted(set(ROWS) - settled)}"
        settled |= ready


# What must not be reached, not even through others


def at_once(name: str) -> set[str]:
    """Return every module that importing this one imports, itself and the packages around it included."""
    reached: set[str] = set()
    todo = [name]
    while todo:
        current = todo.pop()
        if current in reached:
            continue
        reached.add(current)
        if current in FILES:
            parts = current.split(".")
            todo += [".".join(parts[:end]) for end in range(1, len(parts))]
            todo += [imported.name for imported in imports(current) if imported.when == "at once"]
    return reached


@pytest.mark.parametrize("room", NO_TORCH)
def test_needs_no_torch_and_no_engine(room: str) -> None:
    for name in (name for name in FILES if entry_of(name) == room):
        heavy = {module.split(".")[0] for module in at_once(name)} & {"torch", "safetensors", *ENGINES}
        assert not heavy, f"{name} imports {heavy}"


@pytest.mark.parametrize("room", NO_RECIPES)
def test_knows_no_recipe_no_engine_and_nothing_to_its_right(room: str) -> None:
    beyond = {"recipes", "devices", *ROOMS[ROOMS.index(room) + 1 :]}
    for name in (name for name in FILES if entry_of(name) == room):
        reached = {entry_of(module) for module in at_once(name) if module.startswith("edgevit.")}
        assert not reached & beyond, name
        assert not {module.split(".")[0] for module in at_once(name)} & ENGINES, name


def test_nothing_imports_recipes_or_the_database_files_by_name() -> None:
    for name in OURS:
        for imported in imports(name):
            assert not imported.name.startswith(("edgevit.export_recipes", "edgevit.latency_db")), (
                f"{name}:{imported.line}"
            )


# The device side


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("edgevit_runtime")])
def test_runtime_needs_the_standard_library_only(name: str) -> None:
    """Parts of recipes for the host import torch inside functions, as recipes do."""
    of_host = name.split(".")[-1] in (
        "input_layouts",
        "ncnn_int8",
        "ncnn_spelling",
        "quantized_graph",
        "xnnpack_spelling",
    )
    for imported in imports(name):
        light = is_stdlib(imported.name) or imported.name.startswith("edgevit_runtime")
        on_host = of_host and imported.name.split(".")[0] == "torch" and imported.name not in at_once(name)
        assert light or on_host, f"line {imported.line}: {imported.name}"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("edgevit.export_recipes")])
def test_recipe_imports_its_converter_and_engine_inside_functions(name: str) -> None:
    for imported in imports(name):
        assert imported.name.split(".")[0] != "edgevit", (
            f"line {imported.line}: a recipe travels to devices without edgevit"
        )
        light = is_stdlib(imported.name) or imported.name.startswith("edgevit_runtime")
        assert light or imported.when == "later", f"line {imported.line}: {imported.name} is not there on every machine"


def test_an_evaluator_travels_without_edgevit() -> None:
    """In the worker it has another name, so its own modules import each other relatively."""
    assert EVALUATORS
    for name in EVALUATORS:
        for imported in imports(name):
            alone = is_stdlib(imported.name) or imported.name.startswith("edgevit_runtime")
            relative = imported.is_relative and imported.name in EVALUATORS
            assert alone or relative or imported.name.split(".")[0] in ("torch", "numpy"), (
                f"{name}:{imported.line}: {imported.name}"
            )


# Targets by name


def target_words() -> set[str]:
    """Return the words that name a target: names, aliases, engines and converters of recipes, and some to come.

    torch and NumPy serve every target, and "engine" is one target's alias, so they are left out.
    """
    recipes = list_recipes()
    named = [word for r in recipes for word in (r.target, r.engine, *r.aliases, *r.requires)]
    return {word.lower() for word in named} - {"torch", "numpy", "engine"} | ENGINES | {"coreml", "tflite", "litert"}


def line_of(node: ast.AST) -> int:
    """Return the line of a node that has one, else 0."""
    return int(getattr(node, "lineno", 0))


def words_in(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield identifiers and string constants, docstrings aside, each with its line."""
    scopes = [scope.body[0] for scope in ast.walk(node) if isinstance(scope, _SCOPES) and ast.get_docstring(scope)]
    docstrings = {id(first.value) for first in scopes if isinstance(first, ast.Expr)}
    for child in ast.walk(node):
        line = getattr(child, "lineno", 0)
        if isinstance(child, ast.Constant) and isinstance(child.value, str) and id(child) not in docstrings:
            yield line, child.value
        for field in ("id", "attr", "name", "arg", "module"):
            if isinstance(value := getattr(child, field, None), str):
                yield line, value


_SCOPES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Cards quote what papers measured with, importers the columns of others; help texts give examples. None of it is code
# that knows a target.
QUOTES = re.compile(
    r"^edgevit\.(models\.(?!checkpoint|random_weights|source|layers|preprocess)\w+|published\.importers\.\w+|cli\.\w+)$"
)
# A reference evaluator reads one target's format, and travels to its worker process like a recipe: all its modules.
EVALUATORS = {
    name
    for recipe in list_recipes()
    for name in FILES
    if recipe.evaluator and f"{name}.".startswith(f"edgevit.verification.{recipe.evaluator}.")
}
PROGRAMS = {name for recipe in list_recipes() for name in (recipe.harness, recipe.native) if name}
# A harness runs artifacts of one target, as an evaluator does.
HARNESSES = {f"edgevit.devices.vendor_tools.{name}" for name in PROGRAMS}


@pytest.mark.parametrize(
    "name", [name for name in ROOM_FILES if not QUOTES.match(name) and name not in EVALUATORS | HARNESSES]
)
def test_no_target_is_named(name: str) -> None:
    names = target_words()
    for line, text in words_in(tree(FILES[name])):
        words = set(re.findall(r"[a-z0-9]+", text.lower()))
        matches = {target for target in names if target in words or (len(target) > 3 and target in text.lower())}
        assert not matches, (
            f"{FILES[name].relative_to(ROOT)}:{line} names {matches}: a target is known by its recipe only"
        )


@pytest.mark.parametrize("name", [name for name in ROOM_FILES if QUOTES.match(name)])
def test_code_that_may_quote_a_target_does_not_depend_on_it(name: str) -> None:
    """The code has no comparison with a target's name and no identifier made of one."""
    names = target_words()
    for node in ast.walk(tree(FILES[name])):
        compared = [*ast.walk(node)] if isinstance(node, ast.Compare | ast.match_case) else []
        texts = [
            constant.value
            for constant in compared
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
        ]
        texts += [node.id] if isinstance(node, ast.Name) else [node.attr] if isinstance(node, ast.Attribute) else []
        for text in texts:
            assert not set(re.findall(r"[a-z0-9]+", text.lower())) & names, f"{name}:{line_of(node)}: {text}"


# Loading code by a computed name

DYNAMIC = {"import_module", "__import__", "exec_module", "spec_from_file_location", "resolve_name", "run_module",
           "run_path", "exec", "eval", "compile"}  # fmt: skip
LOADERS = {
    "edgevit": {"import_module"},  # its own rooms, for names asked of the package
    "edgevit.recipes": {"import_module"},  # targets: the only place
    "edgevit.models": {"resolve_name"},  # its own families
    "edgevit.devices.vendor_tools": {"import_module"},  # its own modules
    "edgevit.published.importers": {"import_module"},  # its own modules
    "edgevit.devices.transports": {"import_module"},  # its own modules
    "edgevit.tuning.forms": {"import_module"},  # its own modules
    "edgevit.models.user_code": {"spec_from_file_location", "exec_module", "import_module"},  # FILE.py of the user
    "edgevit_runtime.worker": {"import_module"},  # the one recipe packed with it
}


@pytest.mark.parametrize("name", FILES)
def test_code_is_loaded_by_name_in_known_places_only(name: str) -> None:
    calls = [node for node in ast.walk(tree(FILES[name])) if isinstance(node, ast.Call)]
    called = {getattr(call.func, "attr", getattr(call.func, "id", "")) for call in calls} - allowed_methods(calls)
    assert called & DYNAMIC == LOADERS.get(name, set())


def allowed_methods(calls: list[ast.Call]) -> set[str]:
    """Return names of built-in functions that occur only as methods here, as in re.compile and model.eval()."""
    return {"compile", "eval", "exec"} - {getattr(call.func, "id", "") for call in calls}


@pytest.mark.parametrize(
    "name",
    [
        "edgevit.models",
        "edgevit.devices.transports",
        "edgevit.devices.vendor_tools",
        "edgevit.published.importers",
        "edgevit.tuning.forms",
    ],
)
def test_a_package_loads_only_what_is_in_it(name: str) -> None:
    for call in (node for node in ast.walk(tree(FILES[name])) if isinstance(node, ast.Call)):
        if getattr(call.func, "attr", "") in ("import_module", "resolve_name"):
            assert ast.unparse(call.args[0]).startswith("f'{__name__}."), ast.unparse(call)


def test_only_recipes_knows_where_recipes_are() -> None:
    naming = [name for name in ROOM_FILES if any("export_recipes" in text for _, text in words_in(tree(FILES[name])))]
    assert naming == ["edgevit.recipes"]


# Errors and checkpoints


@pytest.mark.parametrize("name", FILES)
def test_no_except_is_broad(name: str) -> None:
    for node in ast.walk(tree(FILES[name])):
        caught: list[ast.expr | None] = [node.type] if isinstance(node, ast.ExceptHandler) else []
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "suppress":
            caught += node.args
        for kind in caught:
            assert kind is not None, f"{name}:{line_of(node)}: a bare except"
            names = {child.id for child in ast.walk(kind) if isinstance(child, ast.Name)}
            assert not names & {"Exception", "BaseException"}, f"{name}:{line_of(node)}: catches {names}"


@pytest.mark.parametrize("name", FILES)
def test_no_pickle_is_trusted(name: str) -> None:
    for call in (node for node in ast.walk(tree(FILES[name])) if isinstance(node, ast.Call)):
        called = ast.unparse(call.func)
        if called == "torch.load":
            keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert keywords.get("weights_only") == "True", f"{name}:{call.lineno}"
        assert called not in ("pickle.load", "pickle.loads", "pickle.Unpickler"), f"{name}:{call.lineno}"
        assert not any(ast.unparse(arg) == "torch.load" for arg in call.args), f"{name}:{call.lineno}: passed on"
    for node in (node for node in ast.walk(tree(FILES[name])) if isinstance(node, ast.ImportFrom)):
        unseen = node.module in ("torch", "pickle") and {"load", "loads"} & {alias.name for alias in node.names}
        assert not unseen, f"{name}:{node.lineno}: hides whose load it is"


# What really happens

FRESH = """
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
    loaded = [module for module in {unwanted!r} if module in sys.modules]
    assert not loaded, f"{{name}} imported {{loaded}}"
"""
LIGHT = [
    "edgevit",
    "edgevit.cli",
    "edgevit.selection",
    "edgevit.prediction",
    "edgevit.store",
    "edgevit.measurement.runner",
]


@pytest.mark.parametrize(
    ("names", "unwanted"),
    [
        pytest.param(LIGHT, {"torch", "safetensors", *ENGINES}, id="rooms without torch"),
        pytest.param(["edgevit.cli"], {"sqlalchemy", "alembic", "numpy", "rich"}, id="command line"),
        pytest.param(["edgevit.selection", "edgevit.cards"], {"sqlalchemy", "numpy"}, id="choose"),
        pytest.param([n for n in FILES if n.startswith("edgevit_runtime")], {"edgevit", "numpy"}, id="device side"),
    ],
)
def test_a_fresh_interpreter_imports_nothing_heavy(names: list[str], unwanted: set[str]) -> None:
    names = [name for name in names if not name.endswith("__main__")]
    code = FRESH.format(names=names, unwanted=sorted(unwanted))
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert outcome.returncode == 0, outcome.stderr


# The reader of imports can fail

SAMPLE = """
from __future__ import annotations
import torch.nn, json
from edgevit import cards, __version__
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import numpy
def f():
    from edgevit.store import LatencyDB
    class C:
        import onnx
try:
    import rich
finally:
    pass
"""


def test_imports_are_found_wherever_they_are() -> None:
    pairs = {(imported.name, imported.when) for imported in find_imports(ast.parse(SAMPLE), "at once", "edgevit")}
    assert pairs == {
        ("__future__", "at once"), ("torch.nn", "at once"), ("json", "at once"), ("edgevit.cards", "at once"),
        ("edgevit", "at once"), ("typing", "at once"), ("numpy", "for types"), ("edgevit.store", "later"),
        ("onnx", "later"), ("rich", "at once"),
    }  # fmt: skip


def test_relative_imports_are_refused() -> None:
    with pytest.raises(AssertionError, match="relative"):
        list(find_imports(ast.parse("from . import fold"), "at once", "edgevit.folding"))


def test_relative_imports_of_an_evaluator_are_named_in_full() -> None:
    evaluator = min(EVALUATORS, key=len)
    [imported] = find_imports(ast.parse("from .proto import Message"), "at once", evaluator)
    assert (imported.name, imported.is_relative) == (f"{evaluator}.proto", True)
    with pytest.raises(AssertionError, match="leaves"):
        list(find_imports(ast.parse("from ..compare import max_rel"), "at once", evaluator))
