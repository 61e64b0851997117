"""The routes of Text Generation Inference's clients."""
