"""text-generation, TGI's own client: texts, streams, chats."""

import sys

from text_generation import Client
from text_generation.types import Message

client = Client(sys.argv[1])
whole = client.generate("the cat", max_new_tokens=20, seed=1, typical_p=0.9)
assert len(whole.generated_text) == 20, whole
assert whole.details.generated_tokens == 20
streamed = list(client.generate_stream("the cat", max_new_tokens=20, seed=1, typical_p=0.9))
assert "".join(part.token.text for part in streamed) == whole.generated_text == streamed[-1].generated_text
messages = [Message(role="user", content="the cat")]
chat = client.chat(messages=messages, max_tokens=20, seed=1)
assert len(chat.choices[0].message.content) == 20, chat
