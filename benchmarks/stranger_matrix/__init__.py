"""The parts of benchmarks/strangers.py: the networks, what is examined of each, latencies, and tables."""
