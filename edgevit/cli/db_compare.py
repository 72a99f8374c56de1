"""`edgevit db compare` and `edgevit db tag`: rows against rows, as a regression gate too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer

from edgevit.cli.common import print_json, print_table, say
from edgevit.cli.options import DbOption, OriginOption, OutputOptions, grouped
from edgevit.cli.row_names import NamedRows, RowFinder, RowScope

if TYPE_CHECKING:
    from edgevit.measurement.regression import FailIf, JudgedPair, RowPair
    from edgevit.records.measurement import Measurement
    from edgevit.store import LatencyDB

app = typer.Typer()
EXIT_CODES = {"passed": 0, "failed": 4, "undecided": 6}
_FAIL_IF = ("slower", "ambiguous")
_STDOUT = "-"


@dataclass(frozen=True)
class GateOptions:
    """When a comparison fails, and where its summaries go."""

    baseline: Annotated[
        str | None, typer.Option(metavar="TAG", help="Tag of the rows to compare with, in place of A")
    ] = None
    percentile: Annotated[int, typer.Option(help="Latency percentile to compare, 50, 90 or 99")] = 50
    fail_if: Annotated[
        str | None,
        typer.Option(metavar="VERDICT", help="Verdict on B that exits with 4: slower, or ambiguous for both"),
    ] = None
    markdown: Annotated[
        str | None, typer.Option(metavar="FILE", help="File for a summary in Markdown; - for standard output")
    ] = None
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="File for a summary in JUnit XML")] = None
    origin: OriginOption = "trusted"


@app.command()
@grouped
def compare(
    first: Annotated[
        str | None, typer.Argument(metavar="[A]", help="Id of a row, tag, or MODEL[@TARGET[@PRECISION]]")
    ] = None,
    second: Annotated[str | None, typer.Argument(metavar="[B]", help="Rows that are compared with those of A")] = None,
    *,
    scope: RowScope,
    gate: GateOptions,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Compare rows of equal configuration: B is FASTER, SLOWER or the SAME as A, or the result is AMBIGUOUS."""
    from edgevit.measurement.regression import judge, outcome
    from edgevit.selection import origin_named
    from edgevit.store import LatencyDB

    _require_sense(first, second, gate, output)
    origin = origin_named(gate.origin)
    with LatencyDB.open(db, create_file=False) as database:
        finder = RowFinder(database, scope, origin)
        deciding = database.trusting(origin)
        pairs = _pairs(finder, first, second, gate.baseline)
        judged = []
        for pair in pairs:
            rows = [row for row in (pair.baseline, pair.candidate) if row is not None]
            floors = [floor for row in rows if (floor := deciding.noise(row.device_id)) is not None]
            whole = _with_samples(database, pair, gate.percentile)
            judged.append(judge(whole, floors, gate.percentile, finder.untrusted))
    fail_if = cast("FailIf", gate.fail_if or "slower")
    result = outcome(judged, fail_if)
    _show(judged, result, gate, finder.left_out, output)
    is_undecided = result == "undecided" if gate.fail_if else not any(pair.comparison for pair in judged)
    if code := EXIT_CODES["undecided"] if is_undecided else EXIT_CODES[result] if gate.fail_if else 0:
        raise typer.Exit(code)


def _require_sense(first: str | None, second: str | None, gate: GateOptions, output: OutputOptions) -> None:
    """Raise UsageError for options that make no sense, or not together."""
    from edgevit.errors import UsageError
    from edgevit.measurement.compare import PERCENTILES

    if gate.percentile not in PERCENTILES:
        raise UsageError(f"{gate.percentile} is no percentile of a row", fix="--percentile 50, 90 or 99")
    if gate.fail_if not in (None, *_FAIL_IF):
        raise UsageError(f"{gate.fail_if!r} is no verdict to fail at", fix="--fail-if slower, or --fail-if ambiguous")
    if gate.markdown == _STDOUT and output.as_json:
        raise UsageError("--markdown - and --json both need standard output", fix="--markdown FILE")
    if gate.baseline is not None and second is not None:
        raise UsageError("a baseline takes the place of A", fix="edgevit db compare --baseline TAG B")
    if gate.baseline is None and (first is None or second is None):
        raise UsageError(
            "two names are needed: A and B", fix="edgevit db compare A B, or edgevit db compare --baseline TAG"
        )


def _pairs(finder: RowFinder, first: str | None, second: str | None, tag: str | None) -> list[RowPair]:
    """Return the rows to compare, in pairs. Raises UsageError where A and B have a row in common."""
    from edgevit.measurement.regression import RowPair, paired, reduced
    from edgevit.records.tag import TAG_PREFIX

    if tag is not None:
        return _since(finder, finder.tagged(tag.removeprefix(TAG_PREFIX)), first)
    assert first is not None and second is not None  # as _require_sense found
    one, other = finder.find(first), finder.find(second)
    if "tag" not in (one.kind, other.kind) and len(one.rows) == len(other.rows) == 1:
        _require_two(finder, one.rows, other.rows)
        return [RowPair(one.rows[0], other.rows[0])]
    baseline, candidates = reduced(one.rows, other.rows)
    _require_two(finder, baseline, candidates)
    return paired(baseline, candidates)


def _since(finder: RowFinder, baseline: NamedRows, name: str | None) -> list[RowPair]:
    """Return the pairs of a baseline: with the rows of a name, or with those that were measured since.

    A row that has the tag, and one that is older than the baseline of its configuration, is no counterpart.
    """
    from edgevit.measurement.regression import configuration, paired, reduced

    candidates = finder.others(baseline)
    named = None if name is None else finder.find(name)
    if named is not None:
        ids = named.ids if named.kind != "name" else _alike(finder, named)
        candidates = [row for row in candidates if row.measurement_id in ids]
    position = {row.measurement_id: number for number, row in enumerate(finder.rows)}
    after: dict[tuple[object, ...], int] = {}
    for row in baseline.rows:
        after[configuration(row, ("device",))] = position[row.measurement_id]
    later = [row for row in candidates if position[row.measurement_id] > after.get(configuration(row, ("device",)), -1)]
    pairs = paired(*reduced(baseline.rows, later))
    return [pair for pair in pairs if pair.baseline is not None or name is not None]


def _alike(finder: RowFinder, named: NamedRows) -> frozenset[str]:
    """Return the ids of all rows of the configurations that a name stands for: its newest may be in the baseline."""
    from edgevit.measurement.regression import configuration

    configurations = {configuration(row, ("device_id",)) for row in named.rows}
    return frozenset(row.measurement_id for row in finder.rows if configuration(row, ("device_id",)) in configurations)


def _require_two(finder: RowFinder, baseline: Sequence[Measurement], candidates: Sequence[Measurement]) -> None:
    """Raise UsageError where a row is on both sides: it would be compared with itself."""
    from edgevit.errors import UsageError
    from edgevit.measurement.regression import configuration

    shared = {row.measurement_id for row in baseline} & {row.measurement_id for row in candidates}
    if not shared:
        return
    row = next(row for row in candidates if row.measurement_id in shared)
    alike = [
        other.measurement_id
        for other in finder.rows
        if configuration(other, ("device_id",)) == configuration(row, ("device_id",))
        and other.measurement_id != row.measurement_id
    ]
    fix = (
        f"name two rows: edgevit db compare {alike[-1][:12]} {row.measurement_id[:12]}"
        if alike
        else "measure it once more: edgevit profile ARTIFACT --tag NAME, then edgevit db compare A tag:NAME"
    )
    problem = "A and B are one row" if len(baseline) == len(candidates) == 1 else "A and B have a row in common"
    raise UsageError(problem, where=f"{row.model} {row.target} {row.precision}, {row.measurement_id[:12]}", fix=fix)


def _with_samples(database: LatencyDB, pair: RowPair, percentile: int) -> RowPair:
    """Return the pair with its samples, where the percentile needs them."""
    from edgevit.measurement.regression import RowPair

    if percentile == 50 or pair.baseline is None or pair.candidate is None:
        return pair
    return RowPair(database.get(pair.baseline.measurement_id), database.get(pair.candidate.measurement_id))


def _show(
    pairs: Sequence[JudgedPair], result: str, gate: GateOptions, left_out: Mapping[str, int], output: OutputOptions
) -> None:
    """Write the summaries, then print the answer."""
    from edgevit.reporting import regression_summary

    summary = regression_summary.GateSummary(tuple(pairs), gate.percentile, gate.fail_if, result, left_out)
    if gate.junit is not None:
        regression_summary.save(gate.junit, regression_summary.junit(summary))
    markdown = regression_summary.markdown(summary) if gate.markdown is not None else ""
    if gate.markdown not in (None, _STDOUT):
        regression_summary.save(str(gate.markdown), markdown)
    if output.as_json:
        print_json(regression_summary.to_data(summary))
    elif gate.markdown == _STDOUT:
        for line in markdown.splitlines():
            say(line)
    else:
        columns, lines = regression_summary.table(summary)
        print_table(columns, lines)
        for line in regression_summary.remarks(summary):
            say(line)


@app.command()
@grouped
def tag(
    name: Annotated[str | None, typer.Argument(metavar="[TAG]", help="Tag to give; none: a list of all tags")] = None,
    rows: Annotated[
        list[str] | None, typer.Argument(metavar="[ROW]...", help="Ids, tags, or MODEL[@TARGET[@PRECISION]]")
    ] = None,
    *,
    scope: RowScope,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Give a tag to rows that are in the database, or list the tags."""
    from edgevit.errors import UsageError
    from edgevit.records.tag import require_tag
    from edgevit.store import LatencyDB

    tag_name = None if name is None else require_tag(name)
    if tag_name is not None and not rows:
        raise UsageError("no row named", fix=f"edgevit db tag {tag_name} ROW, such as an id or another tag")
    added = 0
    with LatencyDB.open(db, create_file=False) as database:
        if tag_name is not None:
            finder = RowFinder(database, scope)
            ids = {row_id for row in rows or () for row_id in finder.find(row).ids}
            added = database.add_tag(sorted(ids), tag_name)
        tags = database.tags()
    counts = {label: len(ids) for label, ids in sorted(tags.items())}
    if output.as_json:
        print_json({"added": added, "tags": counts})
    elif tag_name is None:
        print_table(("tag", ">rows"), counts.items())
    else:
        say(f"{added} rows tagged {tag_name}; {counts.get(tag_name, 0)} have it")
