"""`python -m mibao` is the command `mibao`."""

from mibao.cli import main

main()
