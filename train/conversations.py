"""A page."""


def watch(args, options):
    raise NotImplementedError
