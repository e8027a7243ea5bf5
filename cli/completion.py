"""`modelyard completion`: what a shell needs to complete our commands, options and models."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class

from cli.errors import CliError

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_MODELYARD_COMPLETE"
"""How the script asks us; click derives it from the program's name."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash   eval "$(modelyard completion bash)"       in ~/.bashrc
    zsh    eval "$(modelyard completion zsh)"        in ~/.zshrc, after compinit
    fish   modelyard completion fish > ~/.config/fish/completions/modelyard.fish
    """
    from cli.main import modelyard

    found = get_completion_class(shell)
    if found is None:
        raise CliError(f"there is no completion for {shell}")
    # The base class's way: bash's own starts a bash to look at its version, and there may be none here.
    print(ShellComplete.source(found(modelyard, {}, "modelyard", VARIABLE)))
