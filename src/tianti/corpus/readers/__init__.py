"""Readers: one kind of file each, from bytes to documents, naming whatever is bad in them."""
