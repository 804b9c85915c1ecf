"""Mutants of mutator.py that no judge can kill, because they compute the same, and why; each by file, function, statement and what
becomes of it."""

_NOBODY = "more of the trace is worked out, which nobody looks at"
_DEPTH = "depth = M if with_head else max([l + 1 for l in range(M){}], default={})"
_LOOKED_AT = " if wanted(l + 1, hidden) or wanted(l, scores)"

EQUIVALENT: dict[tuple[str, str, str, str], str] = {
    ("model/bert.py", "Bert.forward_batch", "with_head = logits and (c.pooler or c.head != 'none')", "with_head = logits"): _NOBODY,
    **{
        ("model/bert.py", "Bert.forward_batch", _DEPTH.format(_LOOKED_AT, 0), _DEPTH.format(*deeper)): _NOBODY
        for deeper in (("", 0), (_LOOKED_AT, 1))
    },
    ("ops/embedding.py", "add_rows", "order = xp.argsort(ids, kind='stable')", "order = xp.argsort(ids)"): "the same sums in another order",
    ("model/parameters.py", "Layout.__init__", "end = 0", "end = 1"): "where the first tensor lies is nobody's business",
    ("model/encoder.py", "Keep", "cache: bool = True", "cache: bool = False"): "whoever asks says which",
    (
        *("distillation/distill.py", "Intermediate._hidden"),
        "term, weight = (embedding, self._weight('embedding', 0)) if m == 0 else (hidden, self._weight('hidden', m))",
        "term, weight = (embedding, self._weight('embedding', -1)) if m == 0 else (hidden, self._weight('hidden', m))",
    ): "λ of the embeddings is one number",
    (
        *("training/optim.py", "Adam._on_all"),
        "step = max(1, -(-len(chunks) // self.workers.threads))",
        "step = max(2, -(-len(chunks) // self.workers.threads))",
    ): "how many chunks a thread takes at once changes no number",
    (
        *("training/optim.py", "warmup_linear"),
        "return max(0.0, (total - step) / max(total - warmup, 1))",
        "return max(0.0, (total - step) / max(total - warmup, 0))",
    ): "a whole step that is not below warmup leaves total - warmup at 1 or more",
    ("distillation/objectives.py", "View", "logits: bool = False", "logits: bool = True"): _NOBODY,
    (
        *("training/shares.py", "Learner._of_share"),
        "return _Result({**losses, **by_layer}, *dlookups[0])",
        "return _Result({**losses, **by_layer}, *dlookups[-1])",
    ): (
        "the list has one entry"
    ),
    **{
        ("training/shares.py", "Learner._clear_tables", "if self.workers.ranks.size > 1:", f"if self.workers.ranks.size {larger}:"): (
            "the whole table is cleared where the looked-up rows would do"
        )
        for larger in (">= 1", "> 0")
    },
}
