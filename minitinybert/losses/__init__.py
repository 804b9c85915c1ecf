"""The losses, one file each, in the form of the operations:

    loss, cache = term.forward(student, teacher, …)          dstudent, … = term.backward(dloss, cache)

`loss` is a 0-d array (reading it is the caller's business: on a GPU that waits), `dloss` the weight
λ of the term in the total. Every mean is a sum over `count`. A part of a batch passes the whole
batch's count, and the parts' losses and gradients add up.
"""
