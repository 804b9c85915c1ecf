"""The judge: minitinybert's operations, losses, BERT and distillation step in PyTorch, differentiated by autograd, and what they gave.

    twin.py      every operation and loss, and BERT, as plain functions of tensors
    step.py      a distillation step through teacher and student, and the optimisers
    released.py  the released code's two steps as it writes them: what the recipe huawei-2019 has to be
    store.py     `python -m minitinybert_reference.store` writes stored/, which needs no PyTorch to be read

twin.py knows nothing of the code it judges; the others take drawn inputs, layer maps and dropout masks from it.
"""
