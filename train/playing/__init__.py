"""What `python -m train.play` is made of: worlds, who plays, sessions, the page's server."""
