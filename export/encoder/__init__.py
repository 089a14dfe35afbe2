"""Classifiers with an encoder of the BERT family, from their weights straight to a compact graph."""
