"""`python -m taqstore`."""

from taqstore.cli import main

main()
