"""`python -m didiff` is the command line."""

from .cli import main

main()
