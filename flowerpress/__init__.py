"""flowerpress presses federated-learning updates into few real bits, on top of Flower."""

__version__ = "0.1.0"
