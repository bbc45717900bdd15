"""`python -m backchannel.cli`: the same as the command `backchannel`."""

from backchannel.cli import main

main()
