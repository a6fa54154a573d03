"""From record to frame, in memory: no Ray, no Lance, no file.  Each step is a module."""
