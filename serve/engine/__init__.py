"""The decoder's engine: many questions about many clips on one model, without ray, in one process.

The design, from the request inwards:

* **A sequence is a prefix and a suffix.** The prefix (text before the video, video tokens) depends on the clip alone:
  its keys and values are computed once per clip and only read after that. The suffix (geometry tokens, question,
  answer) belongs to one request. Attention is computed over each part and merged by its log-sum-exp (`attention`), so
  that nothing is copied or padded, and all requests of a clip read its prefix together.
* **A step is one forward pass over packed tokens** (`transformer`): every running answer's last token and the suffixes
  of new requests, whatever their clips and lengths. Steps alternate with one chunk of one clip's prefix: the vision
  tower works frame pair by frame pair, so a chunk is a few frame pairs, seen and prefilled; their video tokens are
  never kept.
* **State lives in the event loop's thread, arithmetic in the one thread of the model** (`engine`): between two steps
  the loop admits, cancels and delivers; the worker never sees a request.
* **Memory is a ledger in bytes** (`memory`): a request is admitted when all it may ever need is reserved, so that an
  admitted one always ends. Prefixes nobody uses are evicted, the least recently used first.
* **Geometry is awaited before admission**, and the clip's prefix is computed meanwhile where there is room: whoever
  waits holds nothing that another request needs.

`plain` is the oracle: transformers' own `generate`, one request after the other. `parity` compares the two at start-up,
because `transformer` reads transformers' modules by name.
"""

from serve.engine.engine import Engine
from serve.engine.requests import Choice, Film, Limits, Piece, Request, Result, Text, Token, chunk_for

__all__ = ["Choice", "Engine", "Film", "Limits", "Piece", "Request", "Result", "Text", "Token", "chunk_for"]
