"""Find inputs, write outputs whole, remember what is done."""
