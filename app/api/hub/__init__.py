"""The calls of stock Hugging Face clients, served at the root, where `HF_ENDPOINT` points.

`routing` says how their URLs are taken apart and who asks; each other file is one family of calls.
"""
