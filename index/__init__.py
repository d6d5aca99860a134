"""Whence as a library: documents in, cited answers out."""
