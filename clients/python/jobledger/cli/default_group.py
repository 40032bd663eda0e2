"""A group of which one command may be left unsaid."""

import click


class DefaultGroup(click.Group):
    """Where the first word names none of its commands, the default one is meant: `artifacts JOB` lists."""

    default: str

    def __init__(self, *args: object, default: str, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default, *args]
        return super().parse_args(ctx, args)
