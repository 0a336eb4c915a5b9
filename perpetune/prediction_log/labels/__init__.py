"""Labels: asked for, given, admitted, and how they came."""
