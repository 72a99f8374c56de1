"""Published rows: how other people's tables are imported and checked."""
