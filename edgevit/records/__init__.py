"""The records that pass between rooms: frozen, and written to and read from JSON."""
