"""One module per target: how to write an artifact and how to run it."""
