"""The common cases at training speed: a verdict from the record alone, without any replay."""
