"""Deploying: what makes a version of the catalogue be served, and keeps it served."""
