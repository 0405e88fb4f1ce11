"""A smaller FP32 network that answers as the original does: channels taken out, 2:4 sparse weights, fine-tuning."""
