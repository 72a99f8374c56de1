"""Entry point of the worker: `python worker.pyz JOB.json REPLY.json`. The zipapp has the same file as `__main__.py`."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - any Python 3 can run this check; later modules would be syntax errors
    sys.stderr.write("the worker needs Python 3.10 or later, this is " + sys.version.split()[0] + "\n")
    sys.exit(5)

from edgevit_runtime.worker import main

sys.exit(main(sys.argv[1:]))
