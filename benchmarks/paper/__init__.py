"""What the method is worth: the claims of the paper, tried at the size of the atlas."""
