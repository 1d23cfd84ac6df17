"""What runs left behind: their tables, the answers behind them, and how runs group into recipes. No model, no torch."""
