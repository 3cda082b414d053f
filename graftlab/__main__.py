import sys
from pathlib import Path

if sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd().resolve():
    del sys.path[0]  # python -m puts the working folder first: whoever filled it would be imported

from graftlab.cli import main

main()
