"""Counts of the code's structure and wording: sizes, bare private words among names, forbidden words in docstrings.

`python tests/support/house.py [ROOT] [FOLDER ...]` prints them for a checkout, or for some of its folders alone;
`--list` names each binding and docstring that breaks a rule. `--tree` draws the folders as CONTRIBUTING.md shows them.
"""

from __future__ import annotations

import ast
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("edgevit", "runtime", "export_recipes", "latency_db")
# Words that say nothing of what a variable holds. A name made of several words may contain them.
BARE = frozenset(
    {"apart", "asked", "done", "every", "found", "given", "held", "how", "item", "items", "kept", "known", "least",
     "left", "made", "most", "near", "own", "place", "places", "rest", "said", "says", "seen", "told", "wanted",
     "what", "where"}
)  # fmt: skip
FORBIDDEN = re.compile(r"\b(nobody|somebody|anybody|whoever|whatever|of before)\b|\bis none\b", re.IGNORECASE)
# Imperatives that a function's docstring may begin with, one a line. Add a verb where one is missing.
VERBS = frozenset((Path(__file__).parent / "verbs.txt").read_text(encoding="utf-8").split())


@dataclass(frozen=True)
class Function:
    """A function with its place, its length in lines and the number of its parameters."""

    name: str
    lines: int
    parameters: int


def python_files(root: Path, folders: tuple[str, ...] = PRODUCT) -> list[Path]:
    """Return the Python files below these folders of a checkout, in order."""
    found_files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    found_files += [root / folder for folder in folders if folder.endswith(".py")]
    return sorted(path for path in found_files if "__pycache__" not in path.parts)


def bindings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield each name that a statement or a signature binds, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name, node.lineno


def is_bare(name: str) -> bool:
    """Return whether a name is one of the bare private words."""
    return name.strip("_") in BARE


def docstrings(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int]]:
    """Yield each module, class and function that has a docstring, with its text and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node, text, getattr(node, "lineno", 1)


def forbidden_words(text: str) -> list[str]:
    """Return the forbidden words of a text, code in backticks aside."""
    return [match[0].lower() for match in FORBIDDEN.finditer(re.sub(r"`[^`]*`", "", text))]


def begins_with_a_verb(node: ast.AST, text: str) -> bool:
    """Return whether a function's docstring begins with an imperative verb; properties and classes may be nouns."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return True
    decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
    if "property" in decorators or "fixture" in decorators or node.name.startswith("test_"):
        return True
    return text.split()[0].strip("`.,:;").lower() in VERBS


def functions(tree: ast.Module, path: str) -> Iterator[Function]:
    """Yield the functions of a module. Their length leaves out the docstring."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0]
        doc = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) and first.end_lineno else 0
        arguments = node.args
        names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        count = len([name for name in names if name.arg not in ("self", "cls")])
        count += (arguments.vararg is not None) + (arguments.kwarg is not None)
        yield Function(f"{path}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1 - doc, count)


def counts(root: Path = ROOT, folders: tuple[str, ...] = PRODUCT) -> dict[str, object]:
    """Return the counts of a checkout, or of some of its folders."""
    files = python_files(root, folders)
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    all_functions = [f for path, tree in trees.items() for f in functions(tree, str(path.relative_to(root)))]
    lengths = sorted(function.lines for function in all_functions)
    names = [name for tree in trees.values() for name, _ in bindings(tree)]
    bare = Counter(name for name in names if is_bare(name))
    docs = [entry for tree in trees.values() for entry in docstrings(tree)]
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    longest_file = max(files, key=lambda path: sizes[path])
    longest = max(all_functions, key=lambda function: function.lines)
    widest = max(all_functions, key=lambda function: function.parameters)
    readme = root / "README.md"
    return {
        "files_at_the_top_of_edgevit": len(list((root / "edgevit").glob("*.py"))),
        "files": len(files),
        "longest_file": [str(longest_file.relative_to(root)), sizes[longest_file]],
        "longest_function": [longest.name, longest.lines],
        "function_lines_p50": statistics.median(lengths),
        "function_lines_p90": lengths[int(0.9 * (len(lengths) - 1))],
        "largest_parameter_list": [widest.name, widest.parameters],
        "functions_of_more_than_8_parameters": sorted(f.name for f in all_functions if f.parameters > 8),
        "bindings": len(names),
        "bare_percent": round(100 * sum(bare.values()) / len(names), 2),
        "bare": dict(bare.most_common()),
        "docstrings": len(docs),
        "forbidden_in_docstrings": sum(len(forbidden_words(text)) for _, text, _ in docs),
        "docstrings_without_a_verb": sum(not begins_with_a_verb(node, text) for node, text, _ in docs),
        "readme_words": len(readme.read_text(encoding="utf-8").split()),
    }


def breaches(root: Path, folders: tuple[str, ...]) -> Iterator[str]:
    """Yield a line for each binding and docstring that breaks a rule of names and prose."""
    for path in python_files(root, folders):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        file = path.relative_to(root)
        for name, line in bindings(tree):
            if is_bare(name):
                yield f"{file}:{line}: bare {name}"
        for node, text, line in docstrings(tree):
            for word in forbidden_words(text):
                yield f"{file}:{line}: forbidden {word!r}"
            if not begins_with_a_verb(node, text):
                yield f"{file}:{line}: begins with {text.split()[0]!r}"


# Folders that are no packages, and what each one holds.
FOLDERS = {
    "benchmarks": "Measurements against limits and peers; each prints one JSON object",
    "tests": "One folder for each room; tests/support/ has what several tests need",
    "docs": "Guides, one for each verb",
    "docs/decisions": "Why it is built like this, one page each",
    "docs/notebooks": "Notebooks that the tests run",
    "docs/examples": "Scripts that the guides show",
    "findings": "Surprises about other people's tools, one script each",
    ".ci": "What continuous integration runs, and the versions it was tested with",
}


def packages(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yield the folder of each package of the product, in order, with the first sentence of its docstring."""
    for top in PRODUCT:
        for file in sorted((root / top).rglob("__init__.py")):
            if "migrations" not in file.parts:
                text = str(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))))
                yield (
                    str(file.parent.relative_to(root)),
                    text.splitlines()[0].partition(". ")[0].rstrip(".").removeprefix("edgevit: "),
                )


def drawn_tree(root: Path = ROOT) -> str:
    """Return the tree of CONTRIBUTING.md: every package in its own words, and the other folders."""
    lines = []
    for folder, sentence in [*packages(root), *FOLDERS.items()]:
        depth = folder.count("/") if folder.startswith("edgevit/") else 0
        name = folder.rpartition("/")[2] if depth else folder
        lines.append(f"{'  ' * depth}{name + '/':<{30 - 2 * depth}}{sentence}")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Print the counts, with --list each breach, or with --tree the folders."""
    listing = "--list" in arguments
    if "--tree" in arguments:
        print(drawn_tree())
        return
    given_paths = [argument for argument in arguments if argument != "--list"]
    root = Path(given_paths[0]).resolve() if given_paths else ROOT
    folders = tuple(given_paths[1:]) or PRODUCT
    if listing:
        print("\n".join(breaches(root, folders)))
    else:
        print(json.dumps(counts(root, folders), indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
