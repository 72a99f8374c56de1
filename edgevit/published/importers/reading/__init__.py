"""Tools of importers: readers of tables and YAML, conversion of units, and equivalent names."""
