"""Ray job: make the vectors of a finished target anew.

    ray job submit --working-dir . -- python jobs/embed.py jobs/specs/regenerate.yaml

The last line that it prints is the verdict with cfray's exit code: the job server turns every
exit code but 0 into 1, and repeats the last lines of a job that failed in the job's message.
"""

from cfray.cli import run_job

# Safe to start again at any time: what was computed stays beside the target and is taken up.
if __name__ == "__main__":
    run_job("embed")
