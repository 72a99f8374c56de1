"""Names, prose and sizes of the code, by the rules of CONTRIBUTING.md. tests/support/house.py counts them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import edgevit
from support import house

ROOT = house.ROOT
TESTS = ("tests", "benchmarks")
FILES = house.python_files(ROOT)
LONGEST_FUNCTION = 60
LONGEST_FILE = 500
MOST_PARAMETERS = 8
MOST_BARE_PERCENT = 1.5
README_WORDS = 900
VOCABULARY_WORDS = 30
# These have one file for each verb, named after it, and `profile` is a verb.
VERB_FOLDERS = (ROOT / "edgevit" / "cli", ROOT / "edgevit" / "verbs")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("folders", [house.PRODUCT, TESTS], ids=["product", "tests"])
def test_bindings_are_nouns_of_the_field(folders: tuple[str, ...]) -> None:
    names = [name for path in house.python_files(ROOT, folders) for name, _ in house.bindings(tree(path))]
    bare = [name for name in names if house.is_bare(name)]
    assert len(bare) <= MOST_BARE_PERCENT / 100 * len(names), f"{len(bare)} of {len(names)}: house.py --list shows them"


@pytest.mark.parametrize("folders", [house.PRODUCT, TESTS], ids=["product", "tests"])
def test_docstrings_have_no_forbidden_word(folders: tuple[str, ...]) -> None:
    texts = [(path, text) for path in house.python_files(ROOT, folders) for _, text, _ in house.docstrings(tree(path))]
    broken = [f"{name_of(path)}: {words}" for path, text in texts if (words := house.forbidden_words(text))]
    assert not broken


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    broken = [
        f"{name_of(path)}:{line}: {text.split()[0]}"
        for path in FILES
        for node, text, line in house.docstrings(tree(path))
        if not house.begins_with_a_verb(node, text)
    ]
    assert not broken, "reword them, or add an imperative verb to tests/support/verbs.txt"


def test_no_function_is_long_and_no_file() -> None:
    # A migration is history: it is never rewritten.
    living = [path for path in FILES if "migrations" not in path.parts]
    functions = [function for path in living for function in house.functions(tree(path), name_of(path))]
    assert not [(f.name, f.lines) for f in functions if f.lines > LONGEST_FUNCTION]
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}


def test_parameter_lists_are_short() -> None:
    """Public verbs keep their keyword arguments in sight, because editors show them; all else takes records."""
    verbs = {f"{name}" for name in edgevit.__all__}
    functions = [function for path in FILES for function in house.functions(tree(path), name_of(path))]
    wide = [f for f in functions if f.parameters > MOST_PARAMETERS and f.name.rpartition(":")[2] not in verbs]
    assert not [(f.name, f.parameters) for f in wide]


def test_no_module_shadows_a_standard_one() -> None:
    modules = [path for path in FILES if path.parent not in VERB_FOLDERS and not path.stem.startswith("__")]
    assert not [name_of(path) for path in modules if path.stem in sys.stdlib_module_names]


def test_no_package_binds_a_function_over_a_module_of_its_own() -> None:
    """`from edgevit.folding import fold` must mean one thing: a package exports no name that is a module in it."""
    for init in (path for path in FILES if path.name == "__init__.py"):
        package = ".".join(init.parent.relative_to(ROOT).parts)
        modules = {path.stem for path in init.parent.glob("*.py")}
        modules |= {path.parent.name for path in init.parent.glob("*/__init__.py")}
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree(init))
            if isinstance(node, ast.ImportFrom) and node.module not in (None, package)
            for alias in node.names
        }
        assert not imported & modules, name_of(init)


def test_the_readme_is_one_screen() -> None:
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert len(words) <= README_WORDS


def test_the_vocabulary_is_one_page_and_has_every_word_once() -> None:
    rows = re.findall(r"^\| ([a-z][^|]*) \|", (ROOT / "docs/vocabulary.md").read_text(encoding="utf-8"), re.MULTILINE)
    words = [row for row in rows if row != "word"]
    assert words == sorted(words) and len(words) == len(set(words)) <= VOCABULARY_WORDS


# The counters can fail

SAMPLE = '''
def first(item, path):
    """What nobody asks for."""
    found = [told for told in path]


def second():
    """Return a number."""
'''


def test_the_counters_see_what_they_count() -> None:
    sample = ast.parse(SAMPLE)
    assert [name for name, _ in house.bindings(sample) if house.is_bare(name)] == ["item", "found", "told"]
    docs = list(house.docstrings(sample))
    assert [house.forbidden_words(text) for _, text, _ in docs] == [["nobody"], []]
    assert [house.begins_with_a_verb(node, text) for node, text, _ in docs] == [False, True]
    assert [(f.name, f.lines, f.parameters) for f in house.functions(sample, "x")] == [
        ("x:first", 2, 2),
        ("x:second", 1, 0),
    ]
