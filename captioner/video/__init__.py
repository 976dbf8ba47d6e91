"""From a video file to chosen frames with times, in a process of its own."""
