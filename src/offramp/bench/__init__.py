"""Benchmarks against peers: speed, streams, training steps, attacks, coverage."""
