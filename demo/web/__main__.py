"""The door of `python -m demo.web`."""

from demo.web.command import main
from lib.cli import run_main

if __name__ == "__main__":
    run_main(main)
