"""Trainers: `python -m train` lists them, `python -m train.ppo` runs one."""

if __name__ == "train":  # the short name
    from jaxrl.short_names import stand_in

    stand_in("train")
