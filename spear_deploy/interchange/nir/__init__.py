"""NIR files, with the conventions of each framework that writes them."""
