"""What was probably meant by a name that is none: for the errors about names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_ALIKE = 0.6  # of difflib's ratio, 1 for equal texts: "mnsit" and "mnist" have 0.8


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ``: did you mean 'x'?`` for the most similar of `names`, or nothing.

    Capitals, and ``-`` or ``_``, make no difference.

    Examples
    --------
    >>> did_you_mean("EF21", ["ef14", "ef21", "ef21-sgdm"])
    ": did you mean 'ef21'?"
    >>> did_you_mean("local-step", ["lr", "local_steps"])
    ": did you mean 'local_steps'?"
    >>> did_you_mean("zip", ["sign", "topk"])
    ''
    """
    folded = {_fold(each): each for each in names}
    close = get_close_matches(_fold(name), folded, n=1, cutoff=_ALIKE)
    return f": did you mean {folded[close[0]]!r}?" if close else ""


def unknown(
    what: str, name: str, names: Iterable[str], valid: str = "choose one of", where: str = ""
) -> str:
    """Return an error about a name, with what was probably meant, or else all that could be.

    Parameters
    ----------
    what : str
        What is wrong.
    name : str
        What was written.
    names : iterable of str
        All that could have been written.
    valid : str
        What stands before these.
    where : str
        Where all of them are shown: said beside what was probably meant. Without, they are few and
        are listed there too.

    Examples
    --------
    >>> unknown("unknown data 'minst'", "minst", ["digits", "mnist"])
    "unknown data 'minst': did you mean 'mnist'? Choose one of digits, mnist"
    >>> unknown("unknown task 'minst'", "minst", ["digits", "mnist"], where="`list` shows all")
    "unknown task 'minst': did you mean 'mnist'? `list` shows all"
    >>> unknown("unknown task 'zip'", "zip", ["digits", "mnist"])
    "unknown task 'zip': choose one of digits, mnist"
    """
    names = list(names)
    guess = did_you_mean(name, names)
    if guess and where:
        return f"{what}{guess} {where}"
    listed = f"{valid} {', '.join(names) or 'none'}"
    return f"{what}{guess} {listed[0].upper()}{listed[1:]}" if guess else f"{what}: {listed}"


def _fold(name: str) -> str:
    return name.casefold().replace("_", "-").strip()
