"""From logits to classes and scores."""
