"""Residuals of differential equations at points: what local operators learn."""
