"""What belongs to Keras 3: optimizers made of rules, and the stages of a step."""
