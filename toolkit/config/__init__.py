"""Settings: what they are, where their values come from, and which packages some of them need."""
