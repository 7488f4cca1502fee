"""The model as plain NumPy in float64: slow, short, and what the engine is compared with."""
