"""Environments by id: `envs.make("CartPole-v1", gravity=3.7)`, `python -m envs` lists them."""

from envs.registry import ids, make, make_vec, register, spec

__all__ = ["ids", "make", "make_vec", "register", "spec"]
