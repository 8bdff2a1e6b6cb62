"""What a language model is: its structure, its weights and what it makes of tokens."""
