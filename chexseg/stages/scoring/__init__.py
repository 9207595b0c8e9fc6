"""Pixel counts of predicted and expert masks."""
