"""Pretrained bodies: where they come from, what they take in, which blocks they are made of, how they are frozen."""
