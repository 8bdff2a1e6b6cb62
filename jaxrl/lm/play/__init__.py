"""How a language model speaks: drawing tokens, and playing episodes of many turns."""
