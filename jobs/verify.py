"""Ray job: one verification.

    ray job submit --working-dir . -- python jobs/verify.py jobs/specs/parquet.yaml

The job server flattens exit codes to 0 and 1; the verdict is in ``report.json`` beside the target.
"""

import sys

from cfray.cli import main

# Reads only; needs no source.
if __name__ == "__main__":
    sys.argv = ["cfray", "verify", *sys.argv[1:], "--json"]
    main()
