"""What this process may use of its machine."""

from minitinybert.engine import parallel


def test_memory_is_what_a_container_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "_CONTAINER_S", ())
    whole = parallel.memory_bytes()
    assert 1 << 26 < whole <= 1 << 48
    for text, expected in (("max\n", whole), (f"{1 << 25}\n", 1 << 25), (f"{(1 << 63) - 4096}\n", whole)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(parallel, "_CONTAINER_S", (str(tmp_path / "nowhere"), str(tmp_path / "memory.max")))
        assert parallel.memory_bytes() == expected
