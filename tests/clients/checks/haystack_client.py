"""Haystack: HuggingFaceAPIChatGenerator against a TGI endpoint, with and without a stream."""

import sys

from haystack.dataclasses import ChatMessage

url = sys.argv[1]
try:
    from haystack.components.generators.chat import HuggingFaceAPIChatGenerator
except ImportError:
    from haystack_integrations.components.generators.huggingface_api import HuggingFaceAPIChatGenerator
chat = HuggingFaceAPIChatGenerator(
    api_type="text_generation_inference", api_params={"url": url}, generation_kwargs={"max_tokens": 20}
)
replies = chat.run([ChatMessage.from_user("the cat")])["replies"]
assert len(replies[0].text) == 20, replies
parts = []
streaming = HuggingFaceAPIChatGenerator(
    api_type="text_generation_inference",
    api_params={"url": url},
    generation_kwargs={"max_tokens": 20},
    streaming_callback=parts.append,
)
replies = streaming.run([ChatMessage.from_user("the cat")])["replies"]
assert "".join(part.content for part in parts) == replies[0].text
