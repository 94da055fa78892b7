"""The compressors' benchmark, and its gate.

    python benchmarks/compressors.py              # everything: minutes
    python benchmarks/compressors.py --quick      # some seconds
    python benchmarks/compressors.py --gate       # exits with 1 if a bar is missed in three tries

The same as ``flowerpress bench compressors``.
"""

from __future__ import annotations

import sys

from flowerpress.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "compressors", *sys.argv[1:]]))
