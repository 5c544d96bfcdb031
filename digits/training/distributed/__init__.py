"""Several processes, each with a GPU or a part of the CPU, that train one network together, by Lightning's DDP.

`launch.py` finds or starts them, `strategy.py` shares out each global batch, `batch_norm.py` makes its statistics those
of all parts, and `backend.py` is what training asks. The maths is that of one device with the whole batch.
"""
