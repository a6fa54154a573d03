"""Ray job: record what the source answers to searches while it is up.

    ray job submit --working-dir . -- python jobs/baseline.py jobs/specs/qdrant.yaml

The last line that it prints is the verdict with cfray's exit code: the job server turns every
exit code but 0 into 1, and repeats the last lines of a job that failed in the job's message.
"""

from cfray.cli import run_job

# Writes baseline.json beside the target; the driver alone asks the source.
if __name__ == "__main__":
    run_job("baseline")
