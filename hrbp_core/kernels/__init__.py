"""The three passes on canonical patterns, one module a backend."""
