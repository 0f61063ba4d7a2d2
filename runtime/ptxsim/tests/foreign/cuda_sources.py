def generate(rng):
    pass
