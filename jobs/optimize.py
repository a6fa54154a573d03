"""Ray job: compaction, indexes and verification of a finished target.

    ray job submit --working-dir . -- python jobs/optimize.py jobs/specs/parquet.yaml

The last line that it prints is the verdict with cfray's exit code: the job server turns every
exit code but 0 into 1, and repeats the last lines of a job that failed in the job's message.
"""

from cfray.cli import run_job

# Safe to start again at any time: each step looks at what is done.
if __name__ == "__main__":
    run_job("optimize")
