"""`python -m jobledger.cli` is `jobledger`."""

from jobledger.cli.main import main

main()
