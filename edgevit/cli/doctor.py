"""`edgevit doctor`: what works on this machine, and the command for what does not."""

from __future__ import annotations

from edgevit.cli.common import JsonOption, print_json, print_table, say


def run(as_json: JsonOption = False) -> None:
    """Show what each target can do here: build an artifact, run it."""
    from edgevit.doctor import examine

    checks = examine()
    if as_json:
        print_json({"checks": checks})
        return
    rows = [(check.what, "yes" if check.works else "no", check.detail, check.fix) for check in checks]
    print_table(("what", "works", "detail", "fix"), rows)
    say("all of it works" if all(check.works for check in checks) else "some of it does not work; see the fixes")
