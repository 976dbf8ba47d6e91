"""`captioner review`: the local page on which people correct captions."""
