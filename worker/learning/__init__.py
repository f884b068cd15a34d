"""How a network gets better: modules and tensors in, modules and tensors out. Nothing here knows the product."""
