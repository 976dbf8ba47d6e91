"""The search for words; knows no network."""
