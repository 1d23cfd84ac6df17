"""Datasets and models, looked at before anything is run."""
