"""What PaddlePaddle computes: the port.

Importing this package loads no framework; import the module you need, for example `import paddle_impl.pit`. `torch_ref`
is the twin: the same files, with the same public names and signatures. A `# paddle:` comment marks where the port had
to differ, and says why.
"""
