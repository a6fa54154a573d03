"""Ray job: one migration.

    ray job submit --working-dir . -- python jobs/migrate.py jobs/specs/parquet.yaml

The job server flattens exit codes to 0 and 1; the verdict is in ``report.json`` beside the target.
"""

import sys

from cfray.cli import main

# Safe to start again at any time (a scheduler may restart this driver): a target with a ledger is
# resumed.
if __name__ == "__main__":
    sys.argv = ["cfray", "migrate", *sys.argv[1:], "--json"]
    main()
