"""How a language model improves: from its own episodes, and from those of others."""
