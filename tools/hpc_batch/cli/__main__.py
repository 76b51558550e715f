"""`python3 -m hpc_batch.cli`: the command line without an installed program."""

from __future__ import annotations

import sys

from hpc_batch.cli import main

sys.exit(main())
