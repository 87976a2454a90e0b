"""The command line: parses, calls one function, prints."""

from tianti.cli.main import app, main

__all__ = ["app", "main"]
