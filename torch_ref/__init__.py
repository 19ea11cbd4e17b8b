"""What PyTorch computes: the reference side of the pair.

Importing this package loads no framework; import the module you need, for example `import torch_ref.pit`. `paddle_impl`
is the twin: the same files, with the same public names and signatures.
"""
