"""`python -m flowerpress` is the command `flowerpress`."""

from __future__ import annotations

import sys

from flowerpress.cli import main

sys.exit(main())
