"""``python -m experiments`` is ``rlkd``."""

from experiments.signals import end_on_signals


def run() -> None:
    """Run the process' command. Signals are heeded before anything else is imported, which takes a moment."""
    end_on_signals()
    from experiments.cli import entry_point

    entry_point()


if __name__ == "__main__":
    run()
