"""Documents: their commands run, their links lead somewhere, and no verb or file is missing.

CONTRIBUTING.md, "Documents", says how to write a document that can be tested.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from edgevit.cli import app
from edgevit.devices.transports.adb import LEAST_RUNS
from edgevit.folding.rewrites import REWRITES
from edgevit.measurement import noise_floor, roofline, summary, throttling
from edgevit.measurement.compare import LEAST_DIFFERENCE
from edgevit.measurement.crosscheck import AGREEMENT
from edgevit.measurement.runner import Protocol
from edgevit.records.measurement import PROTOCOL_VERSION
from edgevit.store import epochs, tables
from edgevit.verification import compare
from edgevit_runtime import memory_watchdog, power, timing
from edgevit_runtime.record import Job
from support import house
from support.adbd import MKSH, Adbd, Server
from support.command_line import programs
from support.speed import seconds
from support.sshd import USER, Sshd
from support.vendor_programs import BENCHMARK_MODEL

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "export_recipes").glob("*.md")])
IDS = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
COMMAND_S = 300
# Programs that a document may call. The last two reach its stand-in.
PROGRAMS = ("edgevit", "make", "ls", "scp", "ssh")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the directives in the comments right above it."""

    language: str
    text: str
    line: int
    not_run: str | None = None
    exits: tuple[int, ...] = (0,)
    # Options for those commands of the block that take them.
    extra: tuple[str, ...] = ()
    output: str = ""  # "checked" or "exact"

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command with the lines shown as its output. A backslash at the end continues a command."""
        commands: list[tuple[str, list[str]]] = []
        continued = False
        for line in self.text.splitlines():
            if continued:
                commands[-1] = (commands[-1][0] + "\n" + line, [])
            elif line.startswith("$ "):
                commands.append((line.removeprefix("$ "), []))
            else:
                assert commands, f"line {self.line}: output before any command"
                commands[-1][1].append(line)
            continued = (continued or line.startswith("$ ")) and line.endswith("\\")
        return commands


COMMENT = re.compile(r"<!-- (.+) -->")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        above = text[: match.start()].splitlines()
        options: dict[str, Any] = {}
        while above and (comment := COMMENT.fullmatch(above[-1].strip())):
            options |= directive(comment[1])
            above.pop()
        yield Block(match[1], match[2], text[: match.start()].count("\n") + 1, **options)


def directive(comment: str) -> dict[str, Any]:
    """Return the options of a directive, {} for another comment. Refuse a directive that is nearly right."""
    if reason := re.fullmatch(r"not run: (\S.*)", comment):
        return {"not_run": reason[1]}
    if codes := re.fullmatch(r"exit (\d(?: or \d)*)", comment):
        return {"exits": tuple(map(int, codes[1].split(" or ")))}
    if extra := re.fullmatch(r"run with (--\S.*)", comment):
        return {"extra": tuple(re.split(r" (?=--)", extra[1]))}
    if output := re.fullmatch(r"output (checked|exact)", comment):
        return {"output": output[1]}
    assert not re.match(r"not[ -]run|exit|run|output", comment), f"no such directive: {comment}"
    return {}


def read(document: Path) -> str:
    return document.read_text(encoding="utf-8")


# Commands


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_document_runs(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The folder of devices that a document adds.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    board = stand_in(tmp_path, monkeypatch) if "192.168.1.7" in read(document) else nullcontext()
    phone = stand_in_phone(tmp_path, monkeypatch) if "--transport adb" in read(document) else nullcontext()
    with board, phone:
        run_document(document, tmp_path)


STAND_IN = """#!{python}
import os, sys
there = {there!r}

def meant(word):
    name = next((name for name in there if name in word), "")
    return word.replace(name, there[name]) if name else word

os.execv("{program}", ["{program}", *{options!r}, *map(meant, sys.argv[1:])])
"""


@contextmanager
def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve the documents' board as a real sshd on loopback; wrappers of ssh and scp lead to a private home."""
    for name in ("sshd", "bin", "home"):
        (folder / name).mkdir()
    there = {
        "pi@192.168.1.7:": f"{USER}@127.0.0.1:{folder}/home/",
        "pi@192.168.1.7": f"{USER}@127.0.0.1",
        "edgevit/bin/python": sys.executable,
        "camera/": f"{folder}/home/camera/",
    }
    with Sshd(folder / "sshd", "Subsystem sftp internal-sftp", f"SetEnv XDG_CACHE_HOME={folder}/home/cache") as sshd:
        host_keys = f"UserKnownHostsFile={sshd.known_hosts}"
        for name, port in (("ssh", "-p"), ("scp", "-P")):
            options = [port, str(sshd.port), "-i", str(folder / "sshd/user_key"), "-o", host_keys]
            text = STAND_IN.format(python=sys.executable, there=there, program=shutil.which(name), options=options)
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        yield


@contextmanager
def stand_in_phone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve the documents' phone from tests/support/adbd.py; benchmark_model is a script that prints in its form."""
    (folder / "benchmark_model").write_text(f"#!{MKSH}\n{BENCHMARK_MODEL}")
    with Server(folder / "adb") as server, Adbd(folder / "phone") as adbd:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        server.adb("connect", adbd.serial)
        yield


def run_document(document: Path, tmp_path: Path) -> None:
    for block in blocks(read(document)):
        if block.not_run is None and block.language == "python":
            run_python(block, tmp_path, document.name)
        if block.not_run is None and block.language == "console":
            run_console(block, tmp_path, document.name)


def run_python(block: Block, folder: Path, document: str) -> None:
    """Run a block as a program of its own, whose file lies elsewhere."""
    with tempfile.TemporaryDirectory() as elsewhere:
        file = Path(elsewhere) / "block.py"
        file.write_text(block.text, encoding="utf-8")
        execute([str(programs() / "python"), str(file)], folder, (0,), f"{document}:{block.line}")


def run_console(block: Block, folder: Path, document: str) -> None:
    commands, unused = block.commands, set(block.extra)
    for number, (command, shown) in enumerate(commands):
        location = f"{document}:{block.line}: $ {command}"
        program, *arguments = shlex.split(command, comments=True)
        assert program in PROGRAMS, f"{location}\nis not run by this test: say `<!-- not run: reason -->`"
        last = number == len(commands) - 1
        if program == "make":
            execute(["make", "--dry-run", "-C", str(ROOT), *arguments], folder, (0,), location)
            continue
        taken = [option for option in block.extra if takes(command, option)]
        unused -= set(taken)
        printed = execute(["bash", "-c", " ".join([command, *taken])], folder, block.exits if last else (0,), location)
        if block.output:
            measured = block.output == "checked"
            assert_shown(shown, printed, location, skeleton if measured else spaced, rows_in_order=not measured)
    assert not unused, f"{document}:{block.line}: no command takes {unused}"


def takes(command: str, option: str) -> bool:
    """Return whether a command line is one of edgevit's that has this option, given with or without its value."""
    verb = verb_of(command)
    return verb in VERBS and option.split()[0] in options(verb)


def verb_of(command: str) -> str:
    """Return `devices add` of `edgevit devices add pi5 --host ...`; empty for a command of another program."""
    program, *words = [*shlex.split(command.replace("...", ""), comments=True), ""]
    inner = words[0] in GROUPS and len(words) > 1 and not words[1].startswith("-")
    return "" if program != "edgevit" else " ".join(words[:2]).strip() if inner else words[0]


def execute(command: list[str], folder: Path, exits: tuple[int, ...], location: str) -> str:
    path = os.pathsep.join([str(programs()), str(Path(sys.executable).parent), os.environ["PATH"]])
    outcome = subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True,
                          timeout=seconds(COMMAND_S), check=False)  # fmt: skip
    assert outcome.returncode in exits, (
        f"{location}\nexit code {outcome.returncode}\n{outcome.stdout[-2000:]}\n{outcome.stderr[-2000:]}"
    )
    return outcome.stdout


def assert_shown(
    shown: list[str], printed: str, location: str, reduce: Callable[[str], str], rows_in_order: bool = True
) -> None:
    """Assert that every line shown was printed, in this order, compared after `reduce`.

    `...` stands for any lines, and at the end of a line for the remainder of it. The rows of a table that is sorted by
    what was measured come in any order.
    """
    printed_lines = [reduce(line) for line in printed.splitlines()]
    first_rows = {} if rows_in_order else rows_of_tables(printed_lines)
    start, matched = 0, set[int]()
    for line in shown:
        cut = line.rstrip().endswith("...")
        if expected := reduce(line.rstrip().removesuffix("...") if cut else line):
            same = (
                number
                for number in range(start, len(printed_lines))
                if number not in matched
                and (printed_lines[number].startswith(expected) if cut else printed_lines[number] == expected)
            )
            number = next(same, None)
            assert number is not None, f"{location}\ndid not print, or not in this order: {line}\n{printed}"
            matched.add(number)
            start = first_rows.get(number, number + 1)


def rows_of_tables(lines: list[str]) -> dict[int, int]:
    """Return the number of every row of every table, from a rule to the next empty line, with its first row's."""
    first_rows: dict[int, int] = {}
    first: int | None = None
    for number, line in enumerate(lines):
        if first is not None and line:
            first_rows[number] = first
        else:
            first = number + 1 if line == "─" else None
    return first_rows


def spaced(line: str) -> str:
    """Return a line without the widths of its columns."""
    return re.sub(r"\s+", " ", re.sub(r"─+", "─", line)).strip()


def skeleton(line: str) -> str:
    """Return a line without widths, numbers and grades, because measurements differ from run to run."""
    return spaced(re.sub(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?|\b[A-D]\b", "#", line))


# Links


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def anchors(document: Path) -> set[str]:
    text = FENCE.sub("", read(document))
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", read(document)))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert ROOT in target.parents, f"{link} leads out of the repository"
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_files_named_in_the_text_exist(document: Path) -> None:
    """A path in backticks must exist, unless it is a pattern: with capitals, a star or a brace."""
    for name in re.findall(r"`((?:edgevit|runtime|export_recipes|latency_db|benchmarks|docs|tests|\.ci)/[^`\s]*)`",
                           FENCE.sub("", read(document))):  # fmt: skip
        if not re.search(r"[*{]|[A-Z]{3}", name.removesuffix("README.md")):
            assert (ROOT / name).exists(), name


# The command line


def verbs() -> dict[str, Any]:
    """Return the command of every verb, such as `db export`."""
    commands, todo = {}, [("", typer.main.get_command(app))]
    while todo:
        name, command = todo.pop()
        inner = getattr(command, "commands", {})
        todo += [(f"{name} {verb}".strip(), child) for verb, child in inner.items()]
        if not inner:
            commands[name] = command
    return dict(sorted(commands.items()))


VERBS = verbs()
GROUPS = {verb.split()[0] for verb in VERBS if " " in verb}


def test_the_verbs_are_found() -> None:
    assert {"fold", "choose", "db export"} <= set(VERBS)
    assert "--max-latency" in options("choose")


def options(verb: str) -> set[str]:
    return {name for parameter in VERBS[verb].params for name in parameter.opts if name.startswith("-")} | {
        "-h",
        "--help",
    }


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_a_document(verb: str) -> None:
    mention = re.compile(rf"\bedgevit {verb}\b")
    assert any(mention.search(read(document)) for document in DOCUMENTS), (
        f"`edgevit {verb}` is nowhere in README.md or docs/"
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_has_a_help_text(verb: str) -> None:
    command = VERBS[verb]
    assert command.help and inspect.cleandoc(command.help)[0].isupper()
    bare = [parameter.name for parameter in command.params if not (parameter.help or "").strip()]
    assert not bare


def commands_named(document: Path) -> Iterator[str]:
    """Yield every command line of edgevit in a document: in blocks, run or not, and in backticks."""
    text = read(document)
    for block in blocks(text):
        if block.language == "console":
            yield from (command for command, _ in block.commands if command.startswith("edgevit "))
    yield from re.findall(r"`(edgevit [a-z][^`]*)`", FENCE.sub("", text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_commands_named_exist_with_their_options(document: Path) -> None:
    for command in commands_named(document):
        words, verb = shlex.split(command.replace("...", ""), comments=True)[1:], verb_of(command)
        if verb in GROUPS or verb.startswith("-"):
            continue
        assert verb in VERBS, command
        flags = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert flags <= options(verb), command


# Tables


def test_docs_of_fold_list_every_rewrite() -> None:
    rows = re.findall(r"^\| ([^|]+) \| `\w+\.py` \|", read(ROOT / "docs/fold.md"), re.MULTILINE)
    assert rows == [rewrite.label for rewrite in REWRITES]


def test_docs_of_measuring_give_the_constants_as_they_are() -> None:
    text = read(ROOT / "docs/measure.md")
    constants = {
        "PROTOCOL_PROCESSES": f"{summary.PROTOCOL_PROCESSES}",
        "PROTOCOL_MIN_RUNS": f"{summary.PROTOCOL_MIN_RUNS} per process",
        "PROTOCOL_MIN_NS": f"{summary.PROTOCOL_MIN_NS / 1e9:g} s per process",
        "CONFIDENCE": f"{summary.CONFIDENCE}",
        "Protocol.percentile": f"{Protocol().percentile}",
        "Protocol.timeout_s": f"{Protocol().timeout_s:g} s per process",
        "DRIFT": f"{summary.DRIFT:.0%}",
        "WARM_TOLERANCE": f"{timing.WARM_TOLERANCE:.0%}",
        "CLOCK_SHARE": f"{throttling.CLOCK_SHARE:.0%}",
        "STOLEN_SHARE": f"{throttling.STOLEN_SHARE:.0%}",
        "STOLEN_LIMIT": f"{throttling.STOLEN_LIMIT:.0%}",
        "MAX_RETRIES": f"{throttling.MAX_RETRIES}",
        "COOL_DOWN_S": f"{throttling.COOL_DOWN_S:g} s",
        "MEMORY_SHARE": f"{memory_watchdog.MEMORY_SHARE:.0%}",
        "POLL_S": f"{memory_watchdog.POLL_S:g} s",
        "LEAST_DIFFERENCE": f"{LEAST_DIFFERENCE:.0%}",
        "AGREEMENT": f"{AGREEMENT:.0%}",
        "NOISE_REPEATS": f"{noise_floor.NOISE_REPEATS}",
        "LEAST_RUNS": f"{LEAST_RUNS}",
        "BEST_OF_A_SUMMARY": summary.BEST_OF_A_SUMMARY,
        "BEST_OF_A_MEAN": summary.BEST_OF_A_MEAN,
        "READ_EVERY_NS": f"{power.READ_EVERY_NS / 1e9:g} s",
        "LAYER_RUNS": f"{roofline.LAYER_RUNS}",
        "PROTOCOL_VERSION": f"{PROTOCOL_VERSION}",
    }
    for name, value in constants.items():
        assert f"| `{name}` | {value} |" in text
    defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Job)}
    shortest = f"{defaults['warmup_min_runs']} runs and {defaults['warmup_min_ns'] / 1e9:g} s"
    assert f"| `Job.warmup_min_runs`, `warmup_min_ns` | {shortest} |" in text
    assert f"| `Job.warmup_max_ns` | {defaults['warmup_max_ns'] / 1e9:g} s |" in text
    assert f"{summary.runs_needed(0.99)} in all for p99, {summary.runs_needed(0.9)} for p90" in text


def test_docs_of_verification_give_the_gates_as_they_are() -> None:
    text = read(ROOT / "docs/verify.md")
    assert f"folded form against training form | `max_rel` <= {_limit(compare.FOLD_GATE.max_rel)} |" in text
    assert f"fp32 payload against either form | `max_rel` <= {_limit(compare.GATES['fp32'].max_rel)} |" in text
    for precision in ("fp16", "bf16"):
        limit = f"SNR >= {compare.GATES[precision].min_snr_db:g} dB"
        assert f"{precision} payload against either form | {limit} |" in text
        assert f"{precision}: {limit.removeprefix('SNR >= ')}" in read(ROOT / "README.md")


def test_docs_of_the_database_give_the_constants_and_tables_as_they_are() -> None:
    text = read(ROOT / "docs/database.md")
    for name, value in {
        "JUMP": f"{epochs.JUMP:g}",
        "UNKNOWN_FLOOR": f"{epochs.UNKNOWN_FLOOR:.0%}",
        "LEAST_FLOOR": f"{epochs.LEAST_FLOOR:.0%}",
        "AGREE": f"{epochs.AGREE}",
    }.items():
        assert f"| `{name}` | {value} |" in text
    first = re.findall(r"^\| (`.+?`) \|", text, re.MULTILINE)
    named = {name for cell in first for name in re.findall(r"`(\w+)`", cell)}
    assert set(tables.METADATA.tables) <= named


def _limit(value: float | None) -> str:
    return f"{value:.0e}".replace("e-0", "e-")


# The tree of CONTRIBUTING.md


def tree() -> dict[str, str]:
    """Return the description of each path in the tree drawn in CONTRIBUTING.md."""
    [drawn] = [block.text for block in blocks(read(ROOT / "CONTRIBUTING.md")) if block.language == "text"]
    descriptions, above = {}, list[str]()
    for line in drawn.splitlines():
        name, _, description = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], name]
        descriptions["".join(above)] = description.strip()
    return descriptions


def test_every_folder_of_the_tree_exists() -> None:
    for name in tree():
        assert name.endswith("/") and (ROOT / name).is_dir(), name


def test_the_tree_has_every_package_in_its_own_words() -> None:
    [drawn] = [block.text for block in blocks(read(ROOT / "CONTRIBUTING.md")) if block.language == "text"]
    assert drawn.rstrip() == house.drawn_tree(), "python tests/support/house.py --tree"


# This file can fail

SAMPLE = """
<!-- exit 0 or 3 -->
<!-- output checked -->
```console
$ edgevit choose \\
    --max-latency 25ms
 a  1.25 ms
$ edgevit models
```
<!-- a remark -->
```python
print()
```
<!-- not run: it would take a phone -->
```console
$ adb devices
```
"""


def test_blocks_are_read() -> None:
    first, second, third = blocks(SAMPLE)
    assert first.commands == [("edgevit choose \\\n    --max-latency 25ms", [" a  1.25 ms"]), ("edgevit models", [])]
    assert (first.exits, first.output, first.line) == ((0, 3), "checked", 4)
    assert (second.language, second.exits, second.not_run) == ("python", (0,), None)
    assert third.not_run == "it would take a phone"


def test_options_go_to_the_commands_that_have_them() -> None:
    [block] = blocks("<!-- run with --quick --budget 40s -->\n```console\n$ edgevit db stats\n```\n")
    assert block.extra == ("--quick", "--budget 40s")
    assert takes("edgevit devices calibrate pi5 --budget 10min", "--budget 40s")
    assert not takes("edgevit sweep --models x", "--budget 40s") and not takes("ls --quick", "--quick")


@pytest.mark.parametrize("comment", ["not run", "not-run: why", "exit three", "run quick", "output check"])
def test_a_misspelt_directive_is_refused(comment: str) -> None:
    with pytest.raises(AssertionError, match="no such directive"):
        directive(comment)


@pytest.mark.parametrize(
    "command", ["edgevit models no_such_option --bogus", "rm -rf x", "make no-such-target", "edgevit choose --device x"]
)
def test_a_command_that_fails_is_noticed(command: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run_console(Block("console", f"$ {command}\n", 1), tmp_path, "a document")


def test_output_that_is_not_printed_is_noticed() -> None:
    printed = " a   1.5 ms\n ────────\n b   3e-07\n"
    assert_shown([" a 22.75 ms", "...", " ───", " b 1"], printed, "", skeleton)
    assert_shown(["a 1.5 ms", "b 3e-07"], printed, "", spaced)
    assert_shown(["a 1.5...", "b ..."], printed, "", spaced)
    assert_shown(["grade B, x"], "grade A, x\n", "", skeleton)
    for wrong in ([" c 1"], [" b 1", " a 1"], [" a 1 s"], ["c ..."], ["b ...", "a ..."]):
        with pytest.raises(AssertionError):
            assert_shown(wrong, printed, "", skeleton)
    with pytest.raises(AssertionError):
        assert_shown(["a 1.6 ms"], printed, "", spaced)
    table = " name\n ───\n b 2\n a 10\n\n c 1\n"
    with pytest.raises(AssertionError):
        assert_shown([" a 1", " b 2"], table, "", skeleton)
    assert_shown([" ───", " a 1...", " b 2", "", " c 1"], table, "", skeleton, rows_in_order=False)
    for wrong in ([" a 1", " a 1"], [" c 1", "", " a 1"], [" d 1"]):
        with pytest.raises(AssertionError):
            assert_shown(wrong, table, "", skeleton, rows_in_order=False)
