"""LangChain: HuggingFaceEndpoint with its defaults, HuggingFaceTextGenInference, ChatHuggingFace."""

import sys
import warnings

warnings.simplefilter("ignore")

from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint  # noqa: E402

url = sys.argv[1]
endpoint = HuggingFaceEndpoint(endpoint_url=url, max_new_tokens=20, huggingfacehub_api_token="none")
assert len(endpoint.invoke("the cat")) == 20
assert "".join(endpoint.stream("the cat"))
chat = ChatHuggingFace(llm=endpoint, model_id="none", tokenizer=object())
assert chat.invoke("the cat").content
assert "".join(part.content for part in chat.stream("the cat"))

from langchain_community.llms import HuggingFaceTextGenInference  # noqa: E402

old = HuggingFaceTextGenInference(inference_server_url=url, max_new_tokens=20)
assert len(old.invoke("the cat")) == 20
assert "".join(old.stream("the cat"))
