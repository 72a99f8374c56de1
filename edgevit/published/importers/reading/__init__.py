"""What importers read with: tables and YAML, a line at a time; units, each converted once; names that mean the same."""
