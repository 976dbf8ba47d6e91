"""The captioner: its parts, its file, what its captions are worth."""
