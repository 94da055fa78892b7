"""Draw the pictures of the README and the pages, as SVG without fonts or scripts of their own.

    python scripts/pictures.py                # both: a minute, for the second one trains
    python scripts/pictures.py how-it-works   # the two halves of an algorithm, and a packet
    python scripts/pictures.py bytes          # accuracy against bytes, of real runs

`docs/bytes.svg` holds the figures that it is drawn from, as JSON in its `desc`: the tests draw it
again from these, and train the first rounds again.
"""

from __future__ import annotations

import json
import math
import re
import sys
from itertools import accumulate
from pathlib import Path
from xml.sax.saxutils import escape, unescape

DOCS = Path(__file__).resolve().parents[1] / "docs"
RUNS = {  # presets of the same work: they share data, batches and rounds; and how each looks
    "fedavg": "#555555",
    "ef21-sgdm": "#1f77b4",
    "dsgd": "#d1660a",
    "fedcams": "#2a8a3e",
}
ROUNDS = 40
SANS = 'font-family="system-ui, sans-serif"'
MIDDLE, END = (f'fill="#222222" text-anchor="{at}"' for at in ("middle", "end"))
MONO = 'font-family="ui-monospace, monospace"'

Curve = list[tuple[int, float]]
"""Uplink bytes of all clients so far, and accuracy in percent, after each second round."""


def measure(name: str, rounds: int = ROUNDS) -> tuple[str, Curve]:
    """Train one of the runs on MNIST with seed 0; returns what to call it, and what it reached."""
    from dataclasses import replace

    from flowerpress.simulations.experiment import Experiment
    from flowerpress.simulations.presets import preset

    tuned = preset(Experiment(task="mnist", strategy=name, clients=10, seed=0))
    prepared = replace(tuned, rounds=rounds).prepare()
    history = prepared.simulate().history
    sent = accumulate(record.up_bytes for record in history)
    curve = [
        (total, round(100 * record.metrics["accuracy"], 2))
        for total, record in zip(sent, history, strict=True)
        if total and record.round % 2 == 0
    ]
    return prepared.experiment.title, curve


def svg(width: int, height: int, title: str, desc: str, body: list[str]) -> str:
    """Return a picture on white, so that it is read on dark pages too."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(desc)}</desc>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def text(
    x: float, y: float, said: str, size: int = 14, font: str = SANS, more: str = 'fill="#222222"'
) -> str:
    """Return a line of text; `more` are further attributes."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" {font} {more}>{escape(said)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    """Return a straight line."""
    return f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g}" stroke="{colour}" fill="none" {more}/>'


def chart(curves: dict[str, Curve]) -> str:
    """Return accuracy against bytes, on a logarithmic axis of bytes."""
    left, right, top, bottom, low, high = 60, 700, 44, 340, 40.0, 100.0
    every = [x for curve in curves.values() for x, _ in curve]
    first, last = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))

    def at(x: float, y: float) -> tuple[float, float]:
        along = (math.log10(x) - first) / (last - first)
        up = (max(y, low) - low) / (high - low)
        return round(left + along * (right - left), 1), round(bottom - up * (bottom - top), 1)

    names = {3: "1 kB", 4: "10 kB", 5: "100 kB", 6: "1 MB", 7: "10 MB", 8: "100 MB", 9: "1 GB"}
    body = [text(left, 26, "MNIST, ten clients with unequal data: accuracy, %", 15)]
    for power in range(first, last + 1):
        x, _ = at(10**power, low)
        body.append(line(x, top, x, bottom, "#dddddd"))
        body.append(text(x, bottom + 20, names[power], 13, more=MIDDLE))
    for y in range(int(low), int(high) + 1, 10):
        _, up = at(10**first, y)
        body.append(line(left, up, right, up, "#dddddd"))
        body.append(text(left - 8, up + 4, str(y), 13, more=END))
    body.append(text(right, bottom + 42, "bytes sent up, all clients", 13, more=END))
    for row, (colour, (name, curve)) in enumerate(zip(RUNS.values(), curves.items(), strict=True)):
        points = " ".join(f"{x:g},{y:g}" for x, y in (at(*each) for each in curve))
        body.append(
            f'<polyline points="{points}" stroke="{colour}" stroke-width="2.5" fill="none"/>'
        )
        down = 262 + 22 * row
        body.append(line(300, down - 4, 324, down - 4, colour, 'stroke-width="2.5"'))
        total = curve[-1][0]
        said = f"{name}: {total / 1e6:.2f} MB".replace("fedavg:", "fedavg, dense:")
        body.append(text(332, down, said, 12, MONO))
    return svg(740, 396, "Accuracy against bytes sent", json.dumps(curves), body)


def figures(picture: str) -> dict[str, Curve]:
    """Return what a chart was drawn from."""
    (found,) = re.findall("<desc>(.*)</desc>", picture)
    return {name: [(x, y) for x, y in curve] for name, curve in json.loads(unescape(found)).items()}


def box(x: int, y: int, width: int, height: int, colour: str, lines: list[str]) -> list[str]:
    """Return a box with a heading and lines."""
    where = f'x="{x}" y="{y}" width="{width}" height="{height}"'
    parts = [f'<rect {where} rx="8" fill="{colour}" stroke="#444444"/>']
    parts.append(text(x + 14, y + 26, lines[0], 16, more='fill="#111111" font-weight="600"'))
    return parts + [text(x + 14, y + 50 + 21 * i, each, 13) for i, each in enumerate(lines[1:])]


def halves() -> str:
    """Return the two halves of an algorithm, what goes between them, and a packet."""
    arrow = 'stroke-width="2" marker-end="url(#tip)"'
    tip = '<path d="M0 0 L10 5 L0 10 z" fill="#444444"/>'
    size = 'viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
    body = [f'<defs><marker id="tip" {size} orient="auto">{tip}</marker></defs>']
    body += box(
        20,
        20,
        240,
        176,
        "#e8f0fa",
        [
            "the server's half",
            "strategies/NAME.py",
            "",
            "keeps the model x",
            "and its own memory (h)",
            "takes a step with what arrived",
        ],
    )
    body += box(
        560,
        20,
        240,
        176,
        "#e9f5ea",
        [
            "the client's half",
            "clients/NAME.py",
            "",
            "keeps the data",
            "and its own memory (h_i, e_i)",
            "g = gradient, or K local steps",
        ],
    )
    body += [
        line(262, 76, 556, 76, "#444444", arrow),
        text(409, 64, "instruction: x, options,", 13, more=MIDDLE),
        text(
            409,
            96,
            "and which packet was applied last",
            13,
            more=MIDDLE,
        ),
        line(558, 150, 266, 150, "#444444", arrow),
        text(409, 138, "packet: C(g - h_i) as bytes,", 13, more=MIDDLE),
        text(409, 170, "loss, number of examples", 13, more=MIDDLE),
    ]
    body.append(
        text(20, 240, "a packet, byte by byte", 16, more='fill="#111111" font-weight="600"')
    )
    fields = [
        (60, "FPRS", "magic"),
        (60, "1", "version"),
        (60, "2", "codec"),
        (60, "f32", "dtype"),
        (60, "0", "flags"),
        (90, "8 bytes", "length"),
        (80, "4 bytes", "dim"),
        (80, "4 bytes", "CRC-32"),
        (230, "k values and their places", "payload"),
    ]
    x = 20
    for width, value, name in fields:
        colour = "#fdf1dc" if name == "payload" else "#f1f1f1"
        body.append(
            f'<rect x="{x}" y="254" width="{width}" height="34" fill="{colour}" stroke="#444444"/>'
        )
        body.append(text(x + width / 2, 276, value, 12, MONO, MIDDLE))
        body.append(text(x + width / 2, 306, name, 13, more=MIDDLE))
        x += width
    body.append(
        text(
            20,
            344,
            "The ledger counts what crosses: payload and framing, both ways, by client and round.",
            14,
        )
    )
    return svg(
        820,
        364,
        "The two halves of an algorithm",
        "A server's half sends instructions, and a client's half answers with packets.",
        body,
    )


def main() -> int:
    """Draw the pictures that are named, or both."""
    wanted = sys.argv[1:] or ["how-it-works", "bytes"]
    if unknown := sorted({*wanted} - {"how-it-works", "bytes"}):
        print(f"scripts/pictures.py: there is no picture {unknown[0]!r}", file=sys.stderr)
        return 2
    for name in wanted:
        picture = halves() if name == "how-it-works" else chart(dict(map(measure, RUNS)))
        (DOCS / f"{name}.svg").write_text(picture, "utf-8")
        print(f"docs/{name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
