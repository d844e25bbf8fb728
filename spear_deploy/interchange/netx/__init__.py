"""netx files, the format of lava-dl, read, checked and written."""
