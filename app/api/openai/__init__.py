"""Routes for clients of OpenAI's API."""
