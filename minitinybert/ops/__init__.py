"""The operations, one file each: the equation, `forward`, and below it `backward` with its
derivation.

    y, cache = operation.forward(x, …)          dx, … = operation.backward(dy, cache)

Rows are (..., d), so padded (B, L, d) and packed (T, d) are the same code; only attention knows
sentences. `d` before a name is the gradient of the loss with respect to it. Letters: B sentences, L
length, T rows (tokens), d width, h heads, f the feed-forward's width, V vocabulary.

Nothing here is there for speed. An operation marked `@fused` may be replaced, beneath the same
signature, by a kernel that is: kernels/ says by which, and the tests hold both to the same numbers.
"""
