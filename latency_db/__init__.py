"""Data of the latency database: migrations, devices, model cards and shipped measurements."""
