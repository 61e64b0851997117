"""litellm: chats and completions through its huggingface, openai, vllm and text-completion routes."""

import sys

import litellm

url = sys.argv[1]
messages = [{"role": "user", "content": "the cat"}]
for model, base in (
    ("huggingface/tgi", url),
    ("openai/gru", f"{url}/v1"),
    ("hosted_vllm/gru", f"{url}/v1"),
    ("text-completion-openai/gru", f"{url}/v1"),
):
    asked = {"model": model, "messages": messages, "api_base": base, "api_key": "none", "max_tokens": 20}
    answer = litellm.completion(**asked)
    assert len(answer.choices[0].message.content) == 20, (model, answer)
    parts = [part.choices[0] for part in litellm.completion(**asked, stream=True)]
    assert len("".join(part.delta.content or "" for part in parts)) == 20, (model, parts)
    assert parts[-1].finish_reason == "length", (model, parts[-1])
