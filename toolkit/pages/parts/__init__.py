"""What several pages share: rendering, predictions, charts, pictures, Grad-CAM."""
