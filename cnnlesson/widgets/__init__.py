"""What a student moves and watches in a notebook: explorers, and the live board of a training."""
