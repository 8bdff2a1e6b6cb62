"""Environments by id: `envs.make("CartPole-v1", gravity=3.7)`, `python -m envs` lists them."""

if __name__ == "envs":  # the short name
    from jaxrl.short_names import stand_in

    stand_in("envs")
else:
    from jaxrl.envs.outward import to_gymnasium, to_gymnasium_vec
    from jaxrl.envs.pictures import frames
    from jaxrl.envs.registry import given, ids, make, make_vec, register, spec

    __all__ = [
        "frames",
        "given",
        "ids",
        "make",
        "make_vec",
        "register",
        "spec",
        "to_gymnasium",
        "to_gymnasium_vec",
    ]
