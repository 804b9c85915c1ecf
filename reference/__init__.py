"""What judges minitinybert: the whole method on one page of NumPy, and the same in PyTorch,
differentiated by autograd.

    tinybert.py  the page: every operation above its backward, BERT, the losses, both stages of distillation, augmentation, training
    twin.py      every operation and loss, and BERT, as plain functions of PyTorch's tensors
    step.py      a distillation step through teacher and student, and the optimisers, in PyTorch
    judge.py     a case of the audit, by its name, on the page or on the twin
    released.py  the released code's two steps as it writes them, under dropout; stored/released/ has what it gave when it was run
    store.py     `python -m minitinybert_reference.store` writes stored/, which needs no PyTorch to be read

The page and twin.py know nothing of the code they judge; the others take drawn inputs, layer maps
and dropout masks from it.
"""
