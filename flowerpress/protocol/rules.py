"""How one published packet takes the model to its next version, the same on both sides.

An algorithm that compresses the downlink publishes one packet a step, a delta. A rule says what a
delta does to the model and to the vectors that server and workers keep beside it. Both call the
same function, so their replicas are equal to the bit.

========= ================== =============== =============================================
rule      server's memory    kept beside x   a delta c
========= ================== =============== =============================================
step      error (EF14)       --              x -= c
plain     none               --              x -= rate c
pair      none               previous        none: x comes whole
ef21      what is known      g               g += c;  x -= rate g
onebit    error (EF14)       m, v            m = c;  x -= rate m / (sqrt(v) + eps)  (0 if v = 0)
amsgrad   what is known      g, m, v, w      g += c;  AMSGrad on g (w: the largest v so far)
========= ================== =============== =============================================

With the hyperparameter ``feedback="none"`` rules with an error have none: what the server's
compressor drops is gone, and an unbiased compressor goes unscaled, since there is no memory that
needs a contraction. It is the comparison that papers on error feedback make.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from flowerpress.compressors import Compressor, add_to, decompress, make_compressor
from flowerpress.compressors.contraction import contraction
from flowerpress.compressors.vectors import descend, pieces

FloatVector = npt.NDArray[np.floating[Any]]
Kept = dict[str, FloatVector]

NO_FEEDBACK = "none"
"""Value of the hyperparameter ``feedback`` that switches error feedback off, both ways."""


@dataclass(frozen=True)
class Rule(ABC):
    """What a delta does.

    Attributes
    ----------
    kept : tuple of str
        Names of the vectors beside x, zero at first.
    takes : tuple of str
        Hyperparameters that the rule needs, each the name of a field.
    feedback : {"none", "error", "known"}
        What a server adds to a quantity before it compresses it: nothing; the error it still owes
        (EF14); or minus what is known already, the kept vector "g" (EF21, Markov compression).
        "none" where a run switches the error off.
    """

    kept: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[tuple[str, ...]] = ()
    feedback: str = "none"

    def bind(self, spec: str, shapes: Sequence[tuple[int, ...]]) -> tuple[Compressor, float]:
        """Return the compressor of deltas for tensors of these shapes, and the scale of a delta.

        Raises
        ------
        ValueError
            The rule has a memory, and the compressor is neither contractive nor unbiased.
        """
        if self.feedback == "none":
            return make_compressor(spec).bind_shapes(shapes), 1.0
        return contraction(spec, shapes)

    @abstractmethod
    def advance(self, x: FloatVector, kept: Kept, packet: bytes, scale: float, rate: float) -> None:
        """Apply a delta to `x` and `kept`, in place.

        Parameters
        ----------
        packet : bytes
            The delta is ``scale * decompress(packet)``.
        rate : float
            The step size that was published with it.

        Raises
        ------
        PacketError
            The packet is damaged; nothing is changed.
        """

    def dense(self, x: FloatVector, quantity: FloatVector, rate: float) -> FloatVector:
        """Return the next model where the downlink is not compressed."""
        return x - x.dtype.type(rate) * quantity


@dataclass(frozen=True)
class Step(Rule):
    """x -= c: the step size is inside (two-way EF14)."""

    feedback: str = "error"

    def advance(self, x: FloatVector, kept: Kept, packet: bytes, scale: float, rate: float) -> None:
        add_to(packet, x, -scale)

    def dense(self, x: FloatVector, quantity: FloatVector, rate: float) -> FloatVector:
        return x - quantity


@dataclass(frozen=True)
class Plain(Rule):
    """x -= rate c, with no memory of what c left out."""

    def advance(self, x: FloatVector, kept: Kept, packet: bytes, scale: float, rate: float) -> None:
        add_to(packet, x, -scale * rate)


@dataclass(frozen=True)
class Pair(Rule):
    """x comes whole, and with it the model before it where a worker needs both (PP-MARINA)."""

    kept = ("previous",)

    def advance(self, x: FloatVector, kept: Kept, packet: bytes, scale: float, rate: float) -> None:
        raise ValueError("this model comes whole, not as deltas")

    def dense(self, x: FloatVector, quantity: FloatVector, rate: float) -> FloatVector:
        return x - quantity


@dataclass(frozen=True)
class EF21(Rule):
    """g += c; x -= rate g (EF21-BC: Fatkhullin et al. 2021, arXiv:2110.03294)."""

    kept = ("g",)
    feedback: str = "known"

    def advance(self, x: FloatVector, kept: Kept, packet: bytes, scale: float, rate: float) -> None:
        g = kept["g"]
        add_to(packet, g, scale)
        descend(x, rate, g)


@dataclass(frozen=True)
class OneBit(Rule):
    """m = c; x -= rate m / (sqrt(v) + eps), v frozen (1-bit Adam: Tang et al. 2021).

    Where v is 0, the server has seen no gradient worth the name, and c holds nothing but the
    compressor's error (a sign has no zero): there m = 0, or x would run away by rate c / eps.
    """

    eps: float = 1e-8
    feedback: str = "error"

    takes = ("eps",)
    kept = ("m", "v")

    def bind(self, spec: str, shapes: Sequence[tuple[int, ...]]) -> tuple[Compressor, float]:
        """As `Rule.bind`; what has no bound (the paper's sign:scale=l2) goes unscaled."""
        try:
            return super().bind(spec, shapes)
        except ValueError:
            return make_compressor(spec).bind_shapes(shapes), 1.0

    def advance(self, x: FloatVector, kept: Kept, packet: bytes, scale: float, rate: float) -> None:
        m = decompress(packet, max_dim=x.size)
        if m.dtype != x.dtype:
            m = m.astype(x.dtype)
        if scale != 1.0:
            m *= m.dtype.type(scale)
        kept["m"], real = m, x.dtype.type
        for part in pieces(x):
            v = kept["v"][part]
            m[part] = np.where(v > 0, m[part], real(0))
            x[part] -= real(rate) * ratio(m[part], np.sqrt(v) + real(self.eps))


@dataclass(frozen=True)
class AMSGrad(Rule):
    """g += c, then AMSGrad's step on g (CDAdam: Wang, Lin, Chen 2022, arXiv:2111.00705)."""

    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    feedback: str = "known"

    takes = ("beta1", "beta2", "eps")
    kept = ("g", "m", "v", "w")

    def advance(self, x: FloatVector, kept: Kept, packet: bytes, scale: float, rate: float) -> None:
        g, m, v, w = (kept[name] for name in self.kept)
        add_to(packet, g, scale)
        betas = self.beta1, self.beta2
        for part in pieces(x):
            direction = amsgrad(g[part], m[part], v[part], w[part], *betas, self.eps)
            x[part] -= x.dtype.type(rate) * direction


def amsgrad(
    g: FloatVector,
    m: FloatVector,
    v: FloatVector,
    w: FloatVector,
    beta1: float,
    beta2: float,
    eps: float,
) -> FloatVector:
    """Update the moments by the gradient `g`, in place, and return AMSGrad's direction.

    ``m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w = max(w, v)``, without bias
    correction; the direction is ``m / sqrt(w + eps)`` (Reddi, Kale, Kumar 2018, arXiv:1904.09237).

    Examples
    --------
    >>> g, m, v, w = np.array([2.0, -4.0]), np.zeros(2), np.zeros(2), np.zeros(2)
    >>> amsgrad(g, m, v, w, 0.5, 0.75, 0.0)
    array([ 1., -1.])
    """
    real = g.dtype.type
    m *= real(beta1)
    m += real(1 - beta1) * g
    v *= real(beta2)
    v += real(1 - beta2) * g * g
    np.maximum(w, v, out=w)
    return ratio(m, np.sqrt(w + real(eps)))


def ratio(a: FloatVector, b: FloatVector) -> FloatVector:
    """Return a / b, and 0 where b, which is never negative, is 0.

    Examples
    --------
    >>> ratio(np.array([1.0, 0.0]), np.array([4.0, 0.0]))
    array([0.25, 0.  ])
    """
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


_RULES: dict[str, type[Rule]] = {
    "step": Step,
    "plain": Plain,
    "pair": Pair,
    "ef21": EF21,
    "onebit": OneBit,
    "amsgrad": AMSGrad,
}


def make_rule(name: str, hyper: Mapping[str, Any]) -> Rule:
    """Return the rule `name` with the hyperparameters that it `takes`, and no others.

    One with an error has none where ``feedback`` is "none".

    Raises
    ------
    ValueError
        Unknown name (lists the known ones), or a hyperparameter of the rule's is missing.

    Examples
    --------
    >>> make_rule("onebit", {"eps": 1e-3, "lr": 0.1})
    OneBit(feedback='error', eps=0.001)
    >>> make_rule("step", {"feedback": "none"})
    Step(feedback='none')
    """
    if name not in _RULES:
        raise ValueError(f"unknown rule {name!r}: known are {', '.join(_RULES)}")
    rule = _RULES[name]
    if not hyper.keys() >= {*rule.takes}:
        missing = [key for key in rule.takes if key not in hyper]
        raise ValueError(f"rule {name} needs {', '.join(missing)}, which it was not given")
    taken: dict[str, Any] = {}
    for key in rule.takes:
        taken[key] = float(hyper[key])
    if rule.feedback == "error" and hyper.get("feedback") == NO_FEEDBACK:
        taken["feedback"] = "none"
    return rule(**taken)
