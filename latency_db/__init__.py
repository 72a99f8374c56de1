"""The latency database's data: migrations, devices, model cards and the measurements we ship."""
