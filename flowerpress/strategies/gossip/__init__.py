"""Decentralized training: the relay, the graph, and the algorithms that they serve."""
