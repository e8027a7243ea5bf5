"""`modelyard serve`: the one command that is the daemon."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Configuration; else $MODELYARD_CONFIG, ./modelyard.yaml, ~/.config/modelyard, /etc/modelyard.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Address to listen on instead of the configuration's: also https://HOST:PORT, unix:/PATH.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where locks, logs and what was learned are kept.",
)
@click.option("--log-format", type=click.Choice(["auto", "console", "json"]), help="How log lines look.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="The least that is logged."
)
def serve(
    config: Path | None,
    listen: str | None,
    state_dir: Path | None,
    log_format: str | None,
    log_level: str | None,
) -> int:
    """Run the daemon in the foreground; Ctrl-C stops it and its models.

    One daemon per state directory: a second one exits with status 75 and names the first one's pid.
    """
    from cli.catalog import demo_models
    from modelyard import __version__
    from router.main import ServeOptions
    from router.main import serve as run_daemon

    return run_daemon(
        ServeOptions(
            config=config,
            listen=listen,
            state_dir=state_dir,
            log_format=log_format,
            log_level=log_level,
            version=__version__,
            demo_dir=demo_models(),
        )
    )
