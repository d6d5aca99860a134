"""A store for generations in a Milvus server, so that many processes on many machines can answer from one index.

    COLLECTION                      an alias of the published generation's chunks; replaced in one step
    COLLECTION_20261121T060001Z_3f9c2a        its chunks: a row for each, found by embedding and by keywords
    COLLECTION_20261121T060001Z_3f9c2a_files  what a question needs of the whole corpus, as files in parts
    COLLECTION_published            in place of the alias, where a server has none

A generation is built in a home as ever, and then written here beside those that are there. It counts as whole when
the last of its files, the list of all others, is there. Only then is it named in the alias.
"""
