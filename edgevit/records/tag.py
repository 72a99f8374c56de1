"""Tags: names that a user gives to rows of a latency database, such as `nightly`, a release or a commit."""

from __future__ import annotations

import re

from edgevit.errors import UsageError

TAG_PREFIX = "tag:"  # before a tag where a name may be one of a model or a row
# No `@`, which separates a model from its target, and no `:`.
_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,99}")


def require_tag(text: str) -> str:
    """Return a tag, which may have `tag:` before it, without that. Raise UsageError for a text that cannot be one."""
    name = text.removeprefix(TAG_PREFIX)
    if not _FORM.fullmatch(name):
        why = "a tag has 1 to 100 letters, digits and . _ / + -, and begins with a letter or a digit"
        raise UsageError(f"{text!r} cannot be a tag", why=why, fix="--tag nightly")
    return name
