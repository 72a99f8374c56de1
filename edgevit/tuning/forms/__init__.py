"""Exact forms, one a file: each writes a part of a network in other operators that compute the same function.

Contract of a form: the network computes the same function afterwards, in exact arithmetic, and approximates nothing.
A form knows operators and their sizes. It knows neither families of models nor engines: which engine is fast with
which form is measured. It may cost more multiply-accumulates, weights or memory than what it replaces.
To add a form, write a file here with a tuple FORMS.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from edgevit.errors import UnknownNameError
from edgevit.tuning.form import Form


@cache
def _forms() -> dict[str, Form]:
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    listed = [form for name in names for form in importlib.import_module(f"{__name__}.{name}").FORMS]
    forms = {form.name: form for form in sorted(listed, key=lambda form: form.name)}
    assert len(forms) == len(listed), "two forms have one name"
    return forms


def list_forms() -> list[Form]:
    """Return all forms, by name."""
    return list(_forms().values())


def load_form(name: str) -> Form:
    """Return a form by its name. Raises UnknownNameError."""
    if name not in _forms():
        raise UnknownNameError("form", name, _forms(), listing="edgevit tune --help")
    return _forms()[name]
