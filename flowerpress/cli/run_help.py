"""The help of `flowerpress run`: what the strategies' options mean, as the strategies say it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import click
from typer.core import TyperCommand

_FEW = 3  # strategies that are named where the one asked about lacks an option
OPTIONS = (
    "compressor",
    "lr",
    "momentum",
    "local_steps",
    "local_lr",
    "downlink",
    "weights",
    "init",
    "topology",
    "fraction_train",
)
"""The options of strategies that have a flag of their own; `-S` takes any."""

SEVERAL = {
    "strategy": "--strategies",
    "compressor": "--compressors",
    "lr": "--lrs",
    "seed": "--seeds",
}
"""What a run has one of, and the flag with which a comparison has several."""


class RunCommand(TyperCommand):
    """A command that looks up what its flags mean when it is asked for help, and not before."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[__name__] = strategy_in(args) or self._default()
        if not ctx.resilient_parsing:  # a completion, of words that are not all there yet
            self._refuse_several(ctx, args)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for parameter in self.params:
            if parameter.name in OPTIONS and isinstance(parameter, click.Option):
                parameter.help = meaning(parameter.name, ctx.meta[__name__])
        super().format_help(ctx, formatter)

    def _refuse_several(self, ctx: click.Context, args: list[str]) -> None:
        """Raise `click.UsageError` for two of what `flowerpress compare` is for.

        click would take the last, and not look at the first. Of other options that is what scripts
        rely on that add a user's arguments to their own.
        """
        _, _, order = self.make_parser(ctx).parse_args(args=[*args])
        if any(each.is_eager for each in order):  # who asks for help is to get it
            return
        given = Counter(each.name for each in order)
        for name, several in SEVERAL.items():
            if given[name] > 1:
                raise click.UsageError(
                    f"--{name} is given {given[name]} times: `flowerpress compare TASK {several} "
                    "A,B` runs several side by side",
                    ctx,
                )

    def _default(self) -> str:
        return next(str(each.default) for each in self.params if each.name == "strategy")


def strategy_in(args: list[str]) -> str:
    """Return what `--strategy` says among a command's words; empty: nothing.

    Examples
    --------
    >>> strategy_in(["digits", "--strategy", "ef21"]), strategy_in(["--strategy=ef14", "digits"])
    ('ef21', 'ef14')
    """
    for word, following in pairwise([*args, ""]):
        name, equals, value = word.partition("=")
        if name == "--strategy":
            return value if equals else following
    return ""


def meaning(option: str, strategy: str) -> str:
    """Return what an option means for a strategy; where it has none, which others have it.

    Examples
    --------
    >>> meaning("momentum", "ef21-sgdm"), meaning("topology", "ef21-sgdm")
    ('Weight of the NEW gradient; 1 is EF21 without momentum.', 'Of choco-sgd, d-psgd, squarm-sgd.')
    """
    from flowerpress.strategies import offered
    from flowerpress.strategies.registry import strategy_classes

    every = {name: offered(cls) for name, cls in strategy_classes().items()}
    having = {name: options[option] for name, options in every.items() if option in options}
    if strategy in having:
        return f"{having[strategy].line}."
    few = len(having) <= _FEW
    return f"Of {', '.join(having)}." if few else f"Not an option of {strategy}."
