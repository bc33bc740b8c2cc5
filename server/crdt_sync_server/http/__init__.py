"""The relay's HTTP API: what stands beside the WebSocket."""
