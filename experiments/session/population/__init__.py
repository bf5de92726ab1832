"""A population: several students at once, each with temperatures of its own, and what is kept of them."""
