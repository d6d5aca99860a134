"""Readers: the bytes of a file in, canonical text and blocks out. One module per family of formats."""
