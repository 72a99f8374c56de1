"""Names that a shell would interpret, for tests that no user input reaches one unquoted."""

from __future__ import annotations

# {0} is the path of a file that a shell would create.
EVIL = ["; touch {0}", "$(touch {0})", "`touch {0}`", "a' ; touch {0} '", 'a" ; touch {0} "', "a\ntouch {0}",
        "| touch {0}", "&& touch {0}", "> {0}", "-oProxyCommand=touch {0}", "-F{0}", "a b", "${{IFS}}touch {0}", "*",
        "~root", "%h", "\\$(touch {0})", "é\t\u2028"]  # fmt: skip
# The file that a shell would create, in the home folder where a session begins or in the working directory.
TRAP = "edgevit-test-trap"
