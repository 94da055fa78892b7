"""The table's rows of compressors that are made of others or built on rotations."""

from __future__ import annotations

COMPOSED = (
    "topk:0.3+qsgd:7,bucket=16",
    "randk:0.2+qsgd:7",
    "hadamard",
    "hadamard+sign",
    "hadamard+randk:0.3+qsgd:3",
    "drive",
    "drive:biased",
    "eden",
    "eden:5,scale=biased",
)
RANDOM_COMPOSED = ("randk:0.2+qsgd:7", "drive", "eden")
