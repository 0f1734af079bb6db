"""Ours and the peer, measured in turn: ``python -m benchmarks [pillar ...]``."""
