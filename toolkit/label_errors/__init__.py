"""Wrong labels: corrections, the evidence against labels, and what people decide."""
