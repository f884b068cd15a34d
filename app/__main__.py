"""`python -m app`: one server, configured by the environment and `perennial.toml`."""

import sys

from app.openmp import begin_with_one_thread
from app.settings import Settings

if __name__ == "__main__":
    begin_with_one_thread()
    from app.main import run  # loads torch

    sys.exit(run(Settings()))
