"""What the scripts stand on: nothing in here imports the files at the top of the repository."""
