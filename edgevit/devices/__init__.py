"""Devices that run artifacts: their registry, their enrolment and the transports that reach them."""
