"""Which steps may be killing their node, found without condemning a neighbour (S15)."""
