"""Whole training steps: dense against block-sparse, by fresh processes that take turns."""
