"""`python -m didiff` is the command line."""

from .training.cli import main

main()
