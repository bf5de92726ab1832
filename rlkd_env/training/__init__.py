"""What training a network is made of: the update, its recipe, the teacher, and the cache of the teacher's logits."""
