"""Random valid networks, of random operators, attributes and shapes: what is compiled of them is right, or refused."""
