"""To and from other programs: checkpoints out as Hugging Face folders or PEFT adapters, other trainers' in as runs."""
