"""Starts the worker: `python worker.pyz JOB.json REPLY.json`. Also the zipapp's own `__main__.py`, as it stands."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - said here, in words any Python 3 can read, and not as a syntax error further on
    sys.stderr.write("the worker needs Python 3.10 or later, this is " + sys.version.split()[0] + "\n")
    sys.exit(5)

from edgevit_runtime.worker import main

sys.exit(main(sys.argv[1:]))
