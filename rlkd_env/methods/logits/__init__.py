"""Methods that compare logits, and the control without a teacher."""
