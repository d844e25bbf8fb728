"""NIR files, with the conventions of the frameworks that write them."""
