"""`tabor completion`: what a shell needs to complete commands and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script with which bash, zsh or fish completes commands and flags.

    \b
      tabor completion bash > ~/.local/share/bash-completion/completions/tabor
      tabor completion zsh > ~/.zfunc/_tabor         fpath+=~/.zfunc before compinit in ~/.zshrc
      tabor completion fish > ~/.config/fish/completions/tabor.fish

    For one session of bash: source <(tabor completion bash)
    """
    kind = get_completion_class(shell)
    assert kind is not None, shell
    click.echo(kind(ctx.find_root().command, {}, "tabor", "_TABOR_COMPLETE").source())
