"""Instance-conditional distillation: its losses, its queries, and the decoder that answers them."""
