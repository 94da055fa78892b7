"""The table's rows of compressors that are made of others or built on rotations."""

from __future__ import annotations

COMPOSED = (
    "topk:0.3+qsgd:7,bucket=16",
    "randk:0.2+qsgd:7",
    "hadamard",
    "hadamard+sign",
    "hadamard+randk:0.3+qsgd:3",
    "hadamard+cq",
    "permk+cq:rounding=independent",
    "drive",
    "drive:biased",
    "eden",
    "eden:5,scale=biased",
    "scaled(randk:0.2)",
    "countsketch:ratio=0.3",
    "countsketch:1,columns=20",
    "induced(topk:0.1; randk:0.2)",
    "induced(topk:0.2; sign)",
    "blocked(topk:0.3, 1000)",
    "blocked(qsgd:3,bucket=16, 700)",
    "blocked(permk, 900)",
    "qsgd:1+rans",
    "topk:0.5+qsgd:7+rans",
    "qsgd:127,bucket=64+huffman",
    "topk:0.5+uniform:8+huffman",
)
RANDOM_COMPOSED = ("randk:0.2+qsgd:7", "drive", "eden", "induced(topk:0.1; randk:0.2)", "qsgd+rans")
