"""Forward and backward pass of a decoder over token trees. Imports model."""
