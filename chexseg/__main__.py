"""Run the command line with `python -m chexseg`."""

import os
import sys

# `python -m` puts the current directory first on sys.path, so its files could shadow packages.
# Remove it, unless this package itself was imported from there.
_package_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if not sys.flags.safe_path and os.path.realpath(sys.path[0]) == os.getcwd() != os.path.realpath(
    _package_root
):
    del sys.path[0]

from chexseg.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
