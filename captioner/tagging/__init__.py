"""`captioner tag`: videos to segments and tags, resumable."""
