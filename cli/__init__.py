"""The command line: talks HTTP to the daemon, except for `serve` and `engine`."""
