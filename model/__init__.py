"""The recurrent network, written in NumPy alone: read reference.py first."""
