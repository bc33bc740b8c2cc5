"""Write the modules in `blocking/generated/`."""

import sys

from . import OUT, write

write()
sys.stdout.write(f"{OUT.name}/ is made\n")
