"""The recurrent network: NumPy, safetensors and the standard library; start with reference.py."""
