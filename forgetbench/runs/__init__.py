"""Read runs back: their tables, the stored answers, and the recipes that group runs. Needs no model and no torch."""
