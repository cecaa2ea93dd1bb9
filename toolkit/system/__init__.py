"""The machine below: terminal and signals, files, devices, and several processes."""
