"""One run: what it learns, its steps and epochs, and the state from which it goes on."""
