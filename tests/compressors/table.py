"""The compressors under test: a new one joins every check by one row here."""

from __future__ import annotations

from tests.compressors.composed import COMPOSED, RANDOM_COMPOSED

COMPRESSORS = (
    "identity",
    "topk:0.1",
    "topk:k=3",
    "topk:1.0",
    "randk:0.2",
    "randk:k=2,law=stratified",
    "sign",
    "sign:block=100",
    "sign:block=tensor",
    "sign:l2",
    "sign:l2,block=2",
    "qsgd",
    "qsgd:1,bucket=0",
    "qsgd:2,bucket=64",
    "qsgd:1000,bucket=3000",
    "fp16",
    "bf16",
    "uniform",
    "uniform:1,bucket=0",
    "uniform:3,bucket=100",
    "uniform:8,bucket=64",
    "uniform:1,rounding=nearest",
    "uniform:3,bucket=3000,rounding=nearest",
    "natural",
    "permk",
    "permk+uniform:3,bucket=0",
    "cq",
    "cq:3",
    "cq:16",
    *COMPOSED,
)
RANDOM = (
    "randk:0.2",
    "randk:0.2,law=stratified",
    "qsgd",
    "uniform",
    "natural",
    "cq",
    "cq:4",
    *RANDOM_COMPOSED,
)
