"""Races: forms of a network timed against each other on a device."""
