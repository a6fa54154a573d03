"""Record to frame, in memory: no Ray, no Lance, no file. One module a step."""
