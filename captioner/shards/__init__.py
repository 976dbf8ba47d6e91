"""`captioner caption` over shards: from manifests, archives and tables to a file for each."""
