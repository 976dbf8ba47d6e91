"""Captioned images on disk, whatever the layout."""
