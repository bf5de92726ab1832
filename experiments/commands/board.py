"""``rlkd board``: the runs of a folder as a local web page."""

from __future__ import annotations

import signal

from experiments.config import BoardConfig
from experiments.report.board.server import create_server
from experiments.signals import exit_code
from rlkd_env.errors import UsageError
from rlkd_env.utils.files import expanded


def run_board(config: BoardConfig) -> int:
    """Serve the page until Ctrl-C, which is how a board ends well; other signals stop it as they do any command."""
    folder = expanded(config.folder)
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder" if folder.exists() else f"{folder} does not exist")
    server = create_server(folder, config.port)
    print(f"the runs of {folder} are at http://{server.server_name}:{server.server_port}; Ctrl-C ends it", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt as stop:
        if exit_code(stop) != 128 + signal.SIGINT:
            raise
        return 0
    finally:
        server.server_close()
    return 0
