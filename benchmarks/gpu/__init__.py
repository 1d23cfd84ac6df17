"""What a GPU must prove: that everything holds on it, how fast it is, and that memory is as planned."""
