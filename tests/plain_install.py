"""Let processes find no Ray dashboard, as after `pip install chexseg` without its extras.

Runs of small studies need a tenth less CPU time then.
"""

from __future__ import annotations

import os
from pathlib import Path

#: A directory for PYTHONPATH. It hides a package without which Ray has no dashboard.
HIDDEN = Path(__file__).with_name("hidden_packages")
#: Environment variables of such processes.
VARIABLES = {
    "PYTHONPATH": os.pathsep.join([str(HIDDEN), *filter(None, [os.environ.get("PYTHONPATH")])])
}
