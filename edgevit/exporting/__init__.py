"""Exporting: a folded model becomes an artifact of a target."""
