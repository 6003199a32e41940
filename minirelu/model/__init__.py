"""The Transformer, one file per operation, every forward above its backward.

Shapes are written with one alphabet: ``B`` batch, ``T`` position, ``C`` d_model, ``F`` d_mlp,
``H`` heads, ``D`` d_head, ``V`` d_vocab, ``L`` layers.
"""
