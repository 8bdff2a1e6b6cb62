"""A user's Python that language agents meet: rewards, tools, environments, in processes apart."""
