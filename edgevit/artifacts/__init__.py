"""Artifact folders: their names and seals, and whether opening one may run code."""
