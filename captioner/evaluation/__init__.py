"""`captioner evaluate` and `calibrate`."""
