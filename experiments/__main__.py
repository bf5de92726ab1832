"""``python -m experiments`` is ``rlkd``."""

from experiments.signals import end_on_signals
from rlkd_env.utils.processes import end_with_parent, keep_tracker_through_hangups, started_processes


def run() -> None:
    """Run the process' command. Signals and torchrun's end are heeded before all else is imported, which takes long."""
    end_on_signals()
    keep_tracker_through_hangups()
    if started_processes() > 1:
        end_with_parent()
    from experiments.cli import entry_point

    entry_point()


if __name__ == "__main__":
    run()
