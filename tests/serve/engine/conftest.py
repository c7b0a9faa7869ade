from __future__ import annotations

import pytest

from models.decoder import Decoder
from models.tokenizer import QwenTokenizer
from tests.serve.engine.asked import small_decoder


@pytest.fixture(scope="package")
def decoder(tokenizer: QwenTokenizer) -> Decoder:
    """Never changed by a test."""
    return small_decoder(tokenizer)
