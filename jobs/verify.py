"""Ray job: one verification.

    ray job submit --working-dir . -- python jobs/verify.py jobs/specs/parquet.yaml

The last line that it prints is the verdict with cfray's exit code: the job server turns every
exit code but 0 into 1, and repeats the last lines of a job that failed in the job's message.
"""

from cfray.cli import run_job

# Reads only; needs no source.
if __name__ == "__main__":
    run_job("verify")
