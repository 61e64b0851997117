"""Routes for clients of Text Generation Inference."""
