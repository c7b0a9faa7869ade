"""Who may call, how much, and what belongs to whom.

keyring   API keys by their hashes, from a file that may change at any time
quota     requests, bytes and concurrency of each caller
edge      ASGI middleware: knows the caller before a byte of the body is read
claims    which videos each caller has uploaded
"""
