"""From trained runs to answers: ensembles, what runs their models, requests to endpoints, packed models."""
