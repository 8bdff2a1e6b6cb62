"""Environments that Python steps, in processes of their own, for a learner that is one program."""
