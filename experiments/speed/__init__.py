"""Measurements of speed: the planner's constants (`calibrate`)."""
