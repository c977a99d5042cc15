"""Other people's tools: unmodified scripts, pytest, Lightning, Transformers, TensorBoard.

Each module is thin and imported only by those who use it.
"""
