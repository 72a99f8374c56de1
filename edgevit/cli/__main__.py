"""`python -m edgevit.cli`, for where the script is not on the PATH."""

from edgevit.cli import main

main()
