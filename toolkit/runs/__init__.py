"""Run folders: where a run goes, which one is meant, and what lies in it."""
