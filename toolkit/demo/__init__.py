"""The synthetic faces of tests and demonstration."""
