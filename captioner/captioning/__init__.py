"""`captioner caption` and `fill`: images to records to files, resumable."""
