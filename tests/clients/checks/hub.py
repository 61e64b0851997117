"""huggingface_hub: a chat, a text, their streams, with the URL of the endpoint only."""

import sys

from huggingface_hub import InferenceClient

url = sys.argv[1]
for client in (InferenceClient(model=url), InferenceClient(base_url=url)):
    messages = [{"role": "user", "content": "the cat"}]
    answer = client.chat_completion(messages, max_tokens=20, seed=1)
    chat = answer.choices[0].message.content
    assert len(chat) == 20, chat
    streamed = [
        part.choices[0] for part in client.chat_completion(messages, max_tokens=20, seed=1, stream=True)
    ]
    assert "".join(part.delta.content or "" for part in streamed) == chat
    assert streamed[-1].finish_reason == "length"
client = InferenceClient(model=url)
text = client.text_generation("the cat", max_new_tokens=20, seed=1)
assert len(text) == 20, text
assert "".join(client.text_generation("the cat", max_new_tokens=20, seed=1, stream=True)) == text
typical = client.text_generation("the cat", max_new_tokens=20, seed=1, typical_p=0.95, details=True)
assert typical.details.generated_tokens == 20
