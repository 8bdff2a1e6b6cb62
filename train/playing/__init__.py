"""What `python -m train.play` is made of: worlds, who plays in them, sessions, the page's server."""
