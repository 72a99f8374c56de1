"""Alembic migrations of the latency database."""
