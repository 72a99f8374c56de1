"""Runs of edgevit beside each other and after killed ones: their locks and their temporary files."""
