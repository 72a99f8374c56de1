"""Application of forms to a folded network, with the proof that it still computes the same function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.errors import TuningError
from edgevit.folding.agreement import compare
from edgevit.folding.editing import difference, editable, finished
from edgevit.folding.graph import CONVOLUTION, Net, arguments, is_call
from edgevit.folding.inference_form import Folded
from edgevit.folding.values import VALUE
from edgevit.records.tuning import AppliedForm, SiteForm
from edgevit.tuning.form import Form
from edgevit.tuning.forms import load_form
from edgevit.tuning.site_proof import site_difference
from edgevit.tuning.sites import Site, describe, site_of
from edgevit_runtime.record import FormRule, Recipe

# Of a network with forms, against the one without, in float64; and in float32 where float64 cannot tell.
TOLERANCE, FLOAT32_TOLERANCE = 1e-10, 1e-5
# Returns the form of the nodes that end in this one; None where they stay as they are.
Choice = Callable[[Net, Node], Form | None]


def apply_forms(folded: Folded, choice: Choice, inputs: Sequence[Tensor]) -> tuple[Folded, tuple[AppliedForm, ...]]:
    """Return the network with the chosen forms, and what was applied; the same object where nothing was.

    inputs: examples, by whose shapes the proof is made. Raises TuningError where the result does not compute what the
    folded network computes, in float64 where it runs in it. Of sites with one signature, one is proven by itself too.
    """
    net, applied, proven = editable(folded), list[tuple[Site, str, str]](), set[tuple[str, str]]()
    for node in net.nodes():
        if node.op != "call_function" or node._erased or (form := choice(net, node)) is None:
            continue
        nodes = form.nodes(net, node)
        assert nodes is not None, f"{form.name} was chosen where it does not apply"
        site = site_of(net, nodes)
        applied.append((site, form.name, describe(site)))
        written = form.write(net, node)
        if (site.digest, form.name) not in proven:
            _require_equal_site(net, site, form.name, written)
            proven.add((site.digest, form.name))
        net.replace(node, written)
    if not applied:
        return folded, ()
    _require_equal(folded, net, sorted({name for _, name, _ in applied}), inputs)
    return finished(net, folded), _merged(applied)


def _merged(applied: Iterable[tuple[Site, str, str]]) -> tuple[AppliedForm, ...]:
    modules: dict[tuple[str, str, str], list[str]] = {}
    for site, form, operator in applied:
        modules.setdefault((form, site.digest, operator), []).append(site.module)
    return tuple(AppliedForm(*key, tuple(places)) for key, places in sorted(modules.items()))


def _require_equal(folded: Folded, net: Net, names: Sequence[str], inputs: Sequence[Tensor]) -> None:
    """Raise TuningError where a network with forms differs from the folded one on noise."""
    generator = torch.Generator().manual_seed(0)
    noise = [
        torch.randn(tensor.shape, generator=generator).to(tensor) if tensor.is_floating_point() else tensor
        for tensor in inputs
    ]
    limit, dtype = TOLERANCE, torch.float64
    try:
        error = difference(folded, net, noise)
    except RuntimeError:
        # One that makes tensors of its own in float32 may not run in float64.
        limit, dtype = FLOAT32_TOLERANCE, torch.float32
        error = compare(folded, finished(net, folded, dtype), noise)
    if not error <= limit:
        raise _refusal(", ".join(names), error, dtype, limit)


def _require_equal_site(net: Net, site: Site, name: str, written: Node) -> None:
    """Raise TuningError where a form differs from its site on noise."""
    error = site_difference(net, site.nodes, written)
    if not error <= TOLERANCE:
        raise _refusal(f"{name} at {site.module}", error, torch.float64, TOLERANCE)


def _refusal(forms: str, error: float, dtype: torch.dtype, limit: float) -> TuningError:
    return TuningError(
        f"another function comes of {forms}",
        why=f"max_rel {error:.1e} in {str(dtype).removeprefix('torch.')}, above {limit:g}",
        fix="--form portable, and tell us of this network",
    )


def named(name: str) -> Choice:
    """Return the choice of one form wherever it applies. Raises UnknownNameError."""
    form = load_form(name)
    return lambda net, node: form if form.nodes(net, node) is not None else None


def by_rules(rules: Sequence[FormRule]) -> Choice:
    """Return the choice that a recipe makes on every device."""
    forms = [(rule, load_form(rule.form)) for rule in rules]

    def choose(net: Net, node: Node) -> Form | None:
        fitting = (form for rule, form in forms if is_meant(rule, node) and form.nodes(net, node) is not None)
        return next(fitting, None)

    return choose


def rules_for(recipe: Recipe, precision: str) -> tuple[FormRule, ...]:
    """Return a recipe's rules for a precision."""
    return tuple(rule for rule in recipe.forms if precision in rule.precisions)


def any_is_meant(rules: Sequence[FormRule], folded: Folded) -> bool:
    """Return whether a rule speaks of a node of a network: most networks need no copy to find that out."""
    return any(is_meant(rule, node) for rule in rules for node in folded.net.graph.nodes)


def is_meant(rule: FormRule, node: Node) -> bool:
    """Return whether a rule speaks of a node."""
    if not is_call(node, CONVOLUTION):
        return False
    rows, columns = arguments(node)["weight"].meta[VALUE].shape[2:]
    return bool(rows * columns > rule.above_taps)


def by_sites(site_forms: Iterable[SiteForm]) -> Choice:
    """Return the choice of a form for each of some signatures."""
    chosen = {(one.site, one.form) for one in site_forms}
    forms = [load_form(name) for name in sorted({name for _, name in chosen})]

    def choose(net: Net, node: Node) -> Form | None:
        for form in forms:
            nodes = form.nodes(net, node)
            if nodes is not None and (site_of(net, nodes).digest, form.name) in chosen:
                return form
        return None

    return choose
