"""The proof of a cut: the pruned network equals the masked original."""
