"""Code decides by codes, never by English: no comparison with a phrase, and no taking apart of a message.

A phrase is a text of two words or more. Every comparison, membership test and string method with a phrase is found with
`ast`, also where the phrase stands in a constant of the package; and every string method on a reason, a note or the
message of an error of ours. Texts of other programs have no codes; the modules that read those are listed.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("edgevit", "runtime", "export_recipes") for path in (ROOT / folder).rglob("*.py"))
PHRASE = re.compile(r"[A-Za-z]{2,}[,:;]? [a-z]{2,}")
METHODS = frozenset(
    {"startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split", "rsplit", "replace",
     "find", "rfind", "index", "rindex", "count", "strip", "lstrip", "rstrip"}
)  # fmt: skip
# Names of our own sentences. To take the first line of one or to count its characters decides nothing.
MESSAGES = frozenset({"reason", "reasons", "why", "note", "notes", "message", "caveat", "caveats", "remark", "refusal"})
EXTERNAL = {
    "edgevit/devices/adb_client.py": "what a phone's shell prints",
    "edgevit/devices/android.py": "what dumpsys prints",
    "edgevit/models/checkpoint_file.py": "what torch's reader of pickles raises",
    "runtime/edgevit_runtime/silicon.py": "names of fields in /proc/cpuinfo",
    "edgevit/published/importers/papers.py": "a precision of the papers' lines, which data files keep",
}


def is_phrase(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(PHRASE.search(node.value))


def constants(tree: ast.Module) -> set[str]:
    """Return the names that a module binds to phrases."""
    bound = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value]
    targets = [
        target
        for node in bound
        if node.value is not None and is_phrase(node.value)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return {target.id for target in targets if isinstance(target, ast.Name)}


@functools.cache
def all_constants() -> frozenset[str]:
    """Return the names of the package's constants that hold phrases."""
    return frozenset(name for path in FILES for name in constants(ast.parse(path.read_text())) if name.isupper())


def phrase_names(tree: ast.Module) -> set[str]:
    """Return the names in a module that stand for phrases: its own, and those that it imports."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in all_constants()
    }
    return imported | constants(tree)


def names_a_phrase(node: ast.AST, names: set[str]) -> bool:
    """Return whether an expression is a phrase, a constant that holds one, or a collection with one."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(names_a_phrase(element, names) for element in node.elts)
    if isinstance(node, ast.Attribute):
        return node.attr in all_constants()
    return is_phrase(node) or (isinstance(node, ast.Name) and node.id in names)


def is_message(node: ast.AST) -> bool:
    """Return whether an expression is one of our sentences by its name."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name.strip("_") in MESSAGES


def decisions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield each place where a phrase or a message decides something, with its line."""
    names = phrase_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and _compares(node, names):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.MatchValue) and names_a_phrase(node.value, names):
            yield node.value.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call) and _takes_apart(node, names):
            yield node.lineno, ast.unparse(node)


def _takes_apart(node: ast.Call, names: set[str]) -> bool:
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in METHODS:
        return False
    return any(names_a_phrase(value, names) for value in node.args) or (is_message(node.func.value) and bool(node.args))


def _compares(node: ast.Compare, names: set[str]) -> bool:
    sides = [node.left, *node.comparators]
    contained = any(isinstance(operator, ast.In | ast.NotIn) for operator in node.ops)
    if any(names_a_phrase(side, names) for side in sides):
        return True
    return contained and is_message(sides[-1]) and is_text(sides[0])


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_sentence_decides(path: Path) -> None:
    decisions_found = [f"line {line}: {text}" for line, text in decisions(ast.parse(path.read_text()))]
    if str(path.relative_to(ROOT)) in EXTERNAL:
        assert decisions_found, "take it out of EXTERNAL"
    else:
        assert not decisions_found, decisions_found


EIGHT = """
from edgevit.selection.wording import PICK_IS_PREDICTED
CANNOT_RUN = "cannot run here"
item.reason.startswith(CANNOT_RUN)
"the pick" in note
item.reason == PICK_IS_PREDICTED
"older engine" in flags
said.why.replace(said.column, here)
item.reason.removeprefix(prefix)
item.reason.split(":")
item.reason.partition(":")
match why:
    case "not measured": pass
"""
FINE = """
item.reasons[0].code == "cannot_run"
flag in row.flags
text.split(",")
"note" in kinds
name.endswith(".jsonl")
len(item.reason) > 3
"""


def test_the_reader_finds_each_kind_and_nothing_else() -> None:
    assert [line for line, _ in decisions(ast.parse(EIGHT))] == [*range(4, 12), 13]
    assert list(decisions(ast.parse(FINE))) == []
