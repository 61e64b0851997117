"""A FastAPI route that returns a fixed string: the upper limit of what FastAPI and uvicorn can answer.

python -m benchmarks.bare_route PORT PROCESSES
"""

import sys

import uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

TEXT = "x" * 200


def create_app():
    app = FastAPI()

    @app.post("/generate", response_class=PlainTextResponse)
    async def generate() -> str:
        return TEXT

    return app


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.bare_route:create_app",
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        workers=int(sys.argv[2]),
        log_level="error",
        access_log=False,
    )
