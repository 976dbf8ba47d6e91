"""`captioner fit`: the only folder that imports Lightning."""
