"""The paper's two scenarios: networks, data readers, training runs, tables."""
