"""LlamaIndex: HuggingFaceInferenceAPI, TextGenerationInference, OpenAILike."""

import sys

from llama_index.core.llms import ChatMessage
from llama_index.llms.huggingface_api import HuggingFaceInferenceAPI
from llama_index.llms.openai_like import OpenAILike

url = sys.argv[1]
messages = [ChatMessage(role="user", content="the cat")]
hub = HuggingFaceInferenceAPI(model_name=url, num_output=20, token="none")
assert hub.complete("the cat").text
assert hub.chat(messages).message.content
for is_chat in (True, False):
    like = OpenAILike(model="gru", api_base=f"{url}/v1", api_key="none", is_chat_model=is_chat, max_tokens=20)
    assert len(like.complete("the cat").text) == 20
    assert len("".join(part.delta for part in like.stream_complete("the cat"))) == 20

from llama_index.llms.text_generation_inference import TextGenerationInference  # noqa: E402

tgi = TextGenerationInference(model_url=url, model_name="tgi", max_tokens=20)
assert tgi.complete("the cat").text
assert tgi.chat(messages).message.content
