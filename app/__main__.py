"""`python -m app`: one server, configured by the environment and `perennial.toml`."""

import sys

from app.main import run
from app.settings import Settings

if __name__ == "__main__":
    sys.exit(run(Settings()))
