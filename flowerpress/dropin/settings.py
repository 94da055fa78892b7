"""The options of a pressed app, and what they refuse before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from flwr.app import RecordDict

from flowerpress.dropin.arrays import CORRELATED, KEY
from flowerpress.server.options import SWITCH, Declared, Values, number, one_of, option, text, whole
from flowerpress.server.suitable import ANY_COMPRESSOR, CONTRACTION_OR_DENSE, require_contraction
from flowerpress.suggestions import unknown

STATISTICS = ("*running_mean", "*running_var", "*num_batches_tracked")
"""Arrays that go as they are by default: batch norm's statistics, which no step should make."""
PREFIX = "flowerpress."
_CLIPPING = "clipping_norm"
_SHRINKS = re.compile(r"(topk|identity|threshold)(:[^+();]*)?")  # alone: no vector gets longer


def _patterns(given: Any) -> tuple[str, ...]:
    patterns = given.split(",") if isinstance(given, str) else given
    return tuple(each.strip() for each in patterns if each.strip())


def _are_texts(given: Any) -> bool:
    return isinstance(given, tuple | list) and all(isinstance(each, str) for each in given)


class Settings(Declared):
    """How a Flower app that exists is pressed: options of `pressed`, keys of its run config.

    Raises
    ------
    ValueError
        An option is wrong, or two do not go together: nothing was sent yet.
    """

    name: ClassVar[str] = "press"
    kind: ClassVar[str] = "drop-in"

    compressor: str = option(
        "topk:0.01", ANY_COMPRESSOR, "Of what clients send, see `make_compressor`.", letter="C"
    )
    memory: str = option(
        "ef14",
        one_of("none", "ef14", "ef21", "ef21-sgdm"),
        "What is remembered of what was left out. none: nothing, for unbiased compressors; ef14: "
        "each client sends it later; ef21: clients send differences to what the server keeps of "
        "each, which robust strategies need; ef21-sgdm: the same of a momentum.",
    )
    downlink: str = option(
        "",
        CONTRACTION_OR_DENSE,
        "Compressor of the steps of the model on its way to the clients; empty: it goes dense.",
    )
    momentum: float = option(
        0.1, number("(0, 1]"), "Weight of the NEW update, of ef21-sgdm.", letter="eta"
    )
    dense: tuple[str, ...] = option(
        STATISTICS,
        Values(
            lambda v: isinstance(v, str) or _are_texts(v),
            "patterns of names, as '*running_mean,*running_var'",
            _patterns,
        ),
        "Patterns of the names of arrays that go as they are; whole numbers always do.",
    )
    seed: int = option(0, whole(0), "Seed of what compressors draw.")
    max_scale: float = option(
        1000.0,
        number("[0, inf)"),
        "How many times the median of the clients' first norms an update may have; 0: no limit.",
    )
    clip_sent: float = option(
        0.0,
        number("[0, inf)"),
        "What is sent of a client's update has at most this norm, measured; the rest stays owed. "
        "0: no limit.",
    )
    allow_clipping: bool = option(
        False,
        SWITCH,
        "Whether clients may clip what error feedback then enlarges: the bound, and privacy with "
        "it, is void.",
    )
    plain_mean: bool = option(
        False,
        SWITCH,
        "Whether the strategy takes the plain mean of all: cq and permk are for nothing else.",
    )
    forget_after: int = option(
        1000,
        whole(1),
        "Pushes in which a node was not heard, after which what ef21 keeps of it is dropped.",
    )
    checkpoint: str = option(
        "",
        text(),
        "File that keeps what the grid knows after each batch of answers, so that a server that is "
        "started again goes on from there; empty: none.",
    )
    resume: bool = option(False, SWITCH, "Whether to go on from what is in `checkpoint`.")
    report: str = option("", text(), "File that gets bytes by round as JSON; empty: none.")

    def __init__(self, **options: Any) -> None:
        self.accept(options)
        if self.memory != "none":
            self.compressor = require_contraction(self.compressor)
        if CORRELATED.search(self.compressor) and not self.plain_mean:
            raise ValueError(
                f"compressor is {self.compressor!r}: its errors cancel in the plain mean of all "
                "clients, and nowhere else: give plain_mean=True where the strategy takes that"
            )
        if self.resume and not self.checkpoint:
            raise ValueError("resume is True: expected False, or True where checkpoint is given")
        if self.clip_sent and self.memory.startswith("ef21"):
            raise ValueError(
                f"clip_sent is {self.clip_sent:g}: expected 0 with memory={self.memory}, whose "
                "updates are made on the server of all that a client ever sent; use ef14 or none"
            )

    @classmethod
    def where_shown(cls) -> str:
        """Say what shows the options."""
        return "`flowerpress list dropin` shows all"

    @classmethod
    def of(cls, run_config: Mapping[str, Any], given: Mapping[str, Any]) -> Settings | None:
        """Return the settings of a run: what its config says goes before what is `given`.

        None where its compressor is an empty text: nothing is pressed. Keys that are empty texts
        are otherwise not given; "none" of ``flowerpress.dense`` is no pattern at all.

        Examples
        --------
        >>> config = {"flowerpress.compressor": "sign", "flowerpress.memory": "", "lr": 0.1}
        >>> settings = Settings.of(config, {"memory": "ef21"})
        >>> settings.compressor, settings.memory
        ('sign', 'ef21')
        >>> Settings.of({"flowerpress.compressor": ""}, {}) is None
        True
        """
        own = {k.removeprefix(PREFIX): v for k, v in run_config.items() if k.startswith(PREFIX)}
        if own.get("compressor") == "":
            return None
        for key in own:
            if key.replace("-", "_") not in cls.options:
                names = sorted(name.replace("_", "-") for name in cls.options)
                what = f"no run has a key '{PREFIX}{key}'"
                raise ValueError(unknown(what, key, names, where=cls.where_shown()))
        found = {key.replace("-", "_"): value for key, value in own.items() if value != ""}
        if found.get("dense") == "none":
            found["dense"] = ()
        return cls(**{**given, **found})

    def refuse(self, content: RecordDict, *, dense: bool) -> None:
        """Raise `ValueError` where pressing a training message would void what its app promises.

        `dense` says whether some floats of it go as they are.
        """
        if KEY in content:
            raise ValueError(
                f"this app has a record {KEY!r} of its own, which is the name of what goes along "
                "with a pressed message: give it another"
            )
        for name, config in content.config_records.items():
            if "secagg" in str(name).lower() or any("secagg" in str(k).lower() for k in config):
                raise ValueError(
                    "secure aggregation adds masked numbers, of which nothing may be left out: "
                    "take flowerpress's mod and grid out of this app, or set compressor to ''"
                )
            if _CLIPPING in config and not self.allow_clipping:
                self._refuse_clipping(float(config[_CLIPPING]), dense=dense)  # type: ignore[arg-type]

    def _refuse_clipping(self, bound: float, *, dense: bool) -> None:
        if dense:
            raise ValueError(
                f"clients clip to {bound:g}, and some of their arrays go as they are, beside what "
                "is pressed: the norm of both together has no bound; give dense=()"
            )
        if self.memory == "none" and _SHRINKS.fullmatch(self.compressor):
            return
        if not 0 < self.clip_sent <= bound:
            raise ValueError(
                f"clients clip to {bound:g}, and what {self.compressor} with memory={self.memory} "
                f"makes of that may be larger: give clip_sent={bound:g} or less, memory='none' "
                "with topk, or clip on the server (DifferentialPrivacyServerSideFixedClipping)"
            )
