"""Score through a server: vLLM that this command starts, or any OpenAI-compatible server that runs already."""
