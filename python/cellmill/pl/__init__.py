"""Plots. They need matplotlib, which is imported with the first of them."""
