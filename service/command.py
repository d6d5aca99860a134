"""The command `whence`."""

from __future__ import annotations

from service.loading import loaded_for_good


def main() -> None:
    """Run the command line."""
    with loaded_for_good():
        from service.cli import main as run
    run()
