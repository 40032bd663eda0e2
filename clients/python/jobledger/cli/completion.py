"""`jobledger completion`: what the shell needs to complete verbs, options and job ids."""

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

COMPLETERS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}

SETUP = {
    "bash": 'eval "$(jobledger completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(jobledger completion zsh)" in ~/.zshrc',
    "fish": "jobledger completion fish > ~/.config/fish/completions/jobledger.fish",
}


@click.command(name="completion", epilog="\b\n" + "\n".join(f"{shell}: {line}" for shell, line in SETUP.items()))
@click.argument("shell", type=click.Choice(list(SETUP)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Prints a script that teaches a shell to complete."""
    # Not the class's own `source`: for bash that starts one to ask for its version, and warns where there is none.
    print(ShellComplete.source(COMPLETERS[shell](ctx.find_root().command, {}, "jobledger", "_JOBLEDGER_COMPLETE")))
